//! A live interface, by tcpdump: it has the rights, the filters and the care that this takes.

use std::process::{Child, Command, Stdio};

use super::{CaptureError, Reader};

/// A capture that runs.
#[derive(Debug)]
pub struct Live {
    tcpdump: Child,
}

impl Live {
    /// Listens on an interface to what `filter`, in tcpdump's words, lets through.
    ///
    /// # Errors
    /// When tcpdump can't be started, or may not listen there; it says why itself.
    pub fn listen(interface: &str, filter: &str) -> Result<(Self, Reader), CaptureError> {
        let mut tcpdump = Command::new("tcpdump")
            .args(["-i", interface, "-U", "-n", "-s", "0", "-w", "-", filter])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| CaptureError::Interface(interface.to_owned(), error))?;
        let output = tcpdump.stdout.take().expect("it is piped");
        let live = Self { tcpdump };
        Ok((live, Reader::new(output)?))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.tcpdump.kill();
        let _ = self.tcpdump.wait();
    }
}
