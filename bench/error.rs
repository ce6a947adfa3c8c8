//! Why there are no figures.

use std::fmt;
use std::io;

/// Why a run ended without figures that mean something.
#[derive(Debug)]
pub enum BenchError {
    /// The system could not be asked for something; what, and why not.
    Io(String, io::Error),
    /// The server did not start, or does not answer as it should.
    Server(String),
    /// The load did not go as planned: a refusal, a lost connection, a missing answer.
    Load(String),
    /// The command line asks for what can't be.
    Usage(String),
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(what, error) => write!(f, "{what}: {error}"),
            Self::Server(what) => write!(f, "the server: {what}"),
            Self::Load(what) => write!(f, "the load did not go as planned: {what}"),
            Self::Usage(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for BenchError {}

/// Says what was tried when the system refuses.
pub trait Tried<T> {
    /// The value, or an error that names what was tried.
    ///
    /// # Errors
    /// When there was one.
    fn tried(self, what: impl Into<String>) -> Result<T, BenchError>;
}

impl<T, E: Into<io::Error>> Tried<T> for Result<T, E> {
    fn tried(self, what: impl Into<String>) -> Result<T, BenchError> {
        self.map_err(|error| BenchError::Io(what.into(), error.into()))
    }
}
