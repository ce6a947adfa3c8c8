//! `tern send` and `tern recv` in child processes, fed and heard line by line.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;

use super::server::tern;

/// What is heard of a process: a line, or `None` when it wrote its last.
pub type Heard = Option<String>;

/// A running command; killed if its test ends before it does.
pub struct Talking {
    child: Child,
    input: Option<ChildStdin>,
    listener: Option<JoinHandle<()>>,
}

impl Talking {
    /// Starts a command on a data folder. What it prints goes to `ear`, each line under `tag`;
    /// what it complains about goes to the test's own standard error.
    pub fn start<T: Copy + Send + 'static>(
        data: &Path,
        arguments: &[&str],
        tag: T,
        ear: SyncSender<(T, Heard)>,
    ) -> Self {
        let mut command = tern(data, arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
        let listener = std::thread::spawn(move || {
            let mut line = String::new();
            // A last line without its end was cut off by a kill: it was not printed.
            while out.read_line(&mut line).unwrap_or(0) > 0 && line.ends_with('\n') {
                let said = Some(line.trim_end().to_owned());
                if ear.send((tag, said)).is_err() {
                    return;
                }
                line.clear();
            }
            // A test that has ended does not listen any more.
            let _ = ear.send((tag, None));
        });
        let input = child.stdin.take();
        Self { child, input, listener: Some(listener) }
    }

    /// Gives it a line; whether it could still take it.
    pub fn say(&mut self, line: &str) -> bool {
        let Some(input) = &mut self.input else { return false };
        input.write_all(format!("{line}\n").as_bytes()).is_ok()
    }

    /// It gets no more lines.
    pub fn close(&mut self) {
        self.input = None;
    }

    /// `kill -9`; everything that it printed was heard when this returns, if the ear has room.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.hear_out();
    }

    /// Waits for its end.
    pub fn end(mut self) -> ExitStatus {
        let status = self.child.wait().unwrap();
        self.hear_out();
        status
    }

    fn hear_out(&mut self) {
        if let Some(listener) = self.listener.take() {
            listener.join().expect("it only listens");
        }
    }
}

impl Drop for Talking {
    fn drop(&mut self) {
        // An error says that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
