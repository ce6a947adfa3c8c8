//! The directory: knows devices and users, sometimes answers late, and sometimes can't.

use tern_core::io::{Answer, Input, Query};
use tern_protocol::Code;

use super::{Happening, World};
use crate::fault::Fault;

impl World {
    /// A worker asks; the answer is decided now and comes later.
    pub(super) fn ask_directory(&mut self, generation: u64, worker: usize, query: Query) {
        let down = self.struck(Fault::DirectoryDown);
        let answer = match query {
            Query::Authenticate { session, device, secret } => {
                let known = self
                    .installs
                    .iter()
                    .any(|install| install.device == device && install.secret == secret);
                let result = match (down, known) {
                    (true, _) => Err(Code::Busy),
                    (_, false) => Err(Code::BadCredentials),
                    _ => Ok(self.schedule.token()),
                };
                Answer::Authenticated { session, result }
            }
            Query::Identify { session, .. } => {
                Answer::Identified { session, result: Err(Code::TokensNotTaken) }
            }
            Query::UserExists { shard, channel, uin } => {
                let exists = (!down).then_some(uin.0 <= self.draw.users);
                Answer::UserExists { shard, channel, uin, exists }
            }
        };
        let delay = if self.struck(Fault::SlowDirectory) {
            self.schedule.between(100, 4_000)
        } else {
            self.schedule.between(0, 20)
        };
        self.agenda.add(self.now + delay, Happening::Answer(generation, worker, answer));
    }

    /// The directory answers a worker.
    pub(super) fn answered(&mut self, generation: u64, worker: usize, answer: Answer) {
        if self.server.as_ref().is_some_and(|server| server.generation == generation) {
            self.worker_input(worker, Input::Directory(answer));
        }
    }
}
