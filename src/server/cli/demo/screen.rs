//! What a person sees while the demo runs: events as lines, and how far it is. On a terminal one
//! line at the bottom is written over and over; elsewhere it is printed now and then.

use std::io::IsTerminal;
use std::time::Duration;

use super::super::print;

/// Time between two lines of progress where lines can't be written over.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// Moves to the start of a terminal's line and clears it.
const CLEAR: &str = "\r\x1b[K";

/// Standard output, as a person sees it.
#[derive(Debug)]
pub struct Screen {
    is_terminal: bool,
    next_plain: Duration,
    /// A progress line stands at the bottom.
    is_marked: bool,
}

impl Screen {
    /// The screen of this process.
    pub fn new() -> Self {
        let is_terminal = std::io::stdout().is_terminal();
        Self { is_terminal, next_plain: PLAIN_EVERY, is_marked: false }
    }

    /// Something happened.
    pub fn event(&mut self, at: Duration, text: &str) {
        self.clear();
        show(&format!("{} {text}\n", clock(at)));
    }

    /// How far it is.
    pub fn progress(&mut self, at: Duration, text: impl FnOnce() -> String) {
        if self.is_terminal {
            show(&format!("{CLEAR}{} {}", clock(at), text()));
            self.is_marked = true;
        } else if at >= self.next_plain {
            self.next_plain = at + PLAIN_EVERY;
            show(&format!("{} {}\n", clock(at), text()));
        }
    }

    /// Text of several lines.
    pub fn text(&mut self, text: &str) {
        self.clear();
        show(text);
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.is_marked) {
            show(CLEAR);
        }
    }
}

fn clock(at: Duration) -> String {
    format!("{:6.2} s ", at.as_secs_f64())
}

/// A reader that went away changes nothing of the run; its exit code still says how it ended.
fn show(text: &str) {
    let _ = print(text);
}
