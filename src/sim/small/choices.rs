//! Every way to choose: a run asks which of so many, and the next run goes another way, until all
//! ways are gone.

/// The choices of one run after the other, depth first.
#[derive(Debug)]
pub struct Choices {
    /// What was chosen, of how many; those of the run before, changed at the end.
    taken: Vec<(usize, usize)>,
    asked: usize,
    depth: usize,
}

impl Choices {
    /// All ways of this many choices; what is asked beyond is always the first.
    pub fn new(depth: usize) -> Self {
        Self { taken: Vec::new(), asked: 0, depth }
    }

    /// One of `of`, from 0.
    pub fn choose(&mut self, of: usize) -> usize {
        let index = self.asked;
        self.asked += 1;
        match self.taken.get(index) {
            Some((chosen, _)) => *chosen,
            None if index < self.depth => {
                self.taken.push((0, of));
                0
            }
            None => 0,
        }
    }

    /// Turns to the next way; whether there is one.
    pub fn turn(&mut self) -> bool {
        self.asked = 0;
        while let Some((chosen, of)) = self.taken.pop() {
            if chosen + 1 < of {
                self.taken.push((chosen + 1, of));
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_is_gone_once() {
        let (mut choices, mut ways) = (Choices::new(3), Vec::new());
        loop {
            let first = choices.choose(2);
            let second = choices.choose(1 + 2 * first);
            ways.push((first, second, choices.choose(2), choices.choose(9)));
            if !choices.turn() {
                break;
            }
        }
        let expected: Vec<_> = [
            (0, 0, 0),
            (0, 0, 1),
            (1, 0, 0),
            (1, 0, 1),
            (1, 1, 0),
            (1, 1, 1),
            (1, 2, 0),
            (1, 2, 1),
        ]
        .map(|(a, b, c)| (a, b, c, 0))
        .into();
        assert_eq!(ways, expected);
    }
}
