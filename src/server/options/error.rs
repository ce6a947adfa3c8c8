//! Why options can't be read, with what to do about it.

use std::fmt;
use std::path::PathBuf;

use super::layers::Source;

/// Why the options can't be read.
#[derive(Debug)]
pub enum OptionError {
    /// A value is no value, or outside of its limits.
    Invalid {
        /// Which option.
        option: &'static str,
        /// The text.
        value: String,
        /// What is wrong with it.
        reason: String,
        /// Where it came from.
        source: Source,
    },
    /// The file can't be read, or is no TOML.
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file names an option that the table does not have.
    UnknownKey {
        /// Which file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// The file in the data folder says where the data folder is.
    DataInItself {
        /// Which file.
        path: PathBuf,
    },
    /// An environment variable is not UTF-8.
    NotText {
        /// Its name.
        variable: String,
    },
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid { option, value, reason, source } => {
                write!(f, "option {option}: {value:?} from {source} is not accepted: {reason}")
            }
            Self::File { path, reason } => {
                write!(f, "the file {} can't be used: {reason}", path.display())
            }
            Self::UnknownKey { path, key } => write!(
                f,
                "the file {} sets {key:?}, which is no option; `tern options` lists them",
                path.display()
            ),
            Self::DataInItself { path } => write!(
                f,
                "the file {} was found through the data folder and can't set data; name another \
                 folder by --data or TERN_DATA, or this file by --config",
                path.display()
            ),
            Self::NotText { variable } => {
                write!(f, "the environment variable {variable} is not UTF-8; set it again")
            }
        }
    }
}

impl std::error::Error for OptionError {}
