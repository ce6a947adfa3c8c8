//! How a command ends: the one table of exit codes.

use std::process::ExitCode;

macro_rules! exits {
    ($($code:literal $name:ident $doc:literal;)*) => {
        /// How a command ends.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Exit { $(#[doc = $doc] $name = $code,)* }

        impl Exit {
            /// Every code with its sentence.
            pub const TABLE: &'static [(Self, &'static str)] = &[$((Self::$name, $doc),)*];
        }
    };
}

exits! {
    0 Ok "Done.";
    1 Failed "Not done; the message on standard error says why.";
    2 Usage "The command line or an option is wrong.";
    3 Refused "The server did not accept it: credentials, or a message refused for good.";
    4 Timeout "The time allowed ran out.";
    5 InUse "Port, data folder or profile is in use by another process.";
}

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
        self as u8 // the table's own numbers
    }

    /// The table for people.
    pub(super) fn help() -> String {
        Self::TABLE.iter().fold("Exit codes:\n".to_owned(), |text, (exit, sentence)| {
            text + &format!("  {}  {sentence}\n", exit.code())
        })
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
