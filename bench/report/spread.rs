//! The middle of several runs, and how far apart they are.

/// What several runs gave for one figure.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Spread {
    /// The middle value; of an even number, the mean of the two in the middle.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
}

impl Spread {
    /// Of these values; `None` if there are none.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() {
            0 => return None,
            count if count % 2 == 1 => values[middle],
            _ => f64::midpoint(values[middle - 1], values[middle]),
        };
        Some(Self { median, least: values[0], most: *values.last()? })
    }

    /// As `median (least to most)`, or the one number if there is one only.
    pub fn text(&self) -> String {
        if self.least == self.most {
            return shown(self.median);
        }
        format!("{} ({} to {})", shown(self.median), shown(self.least), shown(self.most))
    }
}

/// With three digits at least, and no more behind the point than they say anything.
pub fn shown(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 1_000.0 || size.fract() == 0.0 => 0,
        size if size >= 100.0 => 1,
        size if size >= 10.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// The same without zeros at the end, for a place where it stands alone.
pub fn short(value: f64) -> String {
    let text = shown(value);
    if !text.contains('.') {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        let median = |values: &[f64]| Spread::of(values.to_vec()).map(|spread| spread.median);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn zeros_say_nothing_on_an_axis() {
        assert_eq!([0.5, 3.5, 20.0, 1.0].map(short), ["0.5", "3.5", "20", "1"]);
    }

    #[test]
    fn one_value_has_no_spread() {
        let text = |values: &[f64]| Spread::of(values.to_vec()).expect("values").text();
        assert_eq!(text(&[0.5]), "0.500");
        assert_eq!(text(&[1.0, 3.0, 1234.56]), "3 (1 to 1235)");
    }
}
