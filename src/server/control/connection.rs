//! One command's connection to the control socket: requests in, responses out, until it hangs up.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::accounts::{Whereabouts, handle_live};
use super::presence::USERS_MAX;
use super::protocol::{REQUEST_BYTES_MAX, Reply, Request, Response};
use super::{Server, Stop};
use tern_protocol::Uin;

use crate::directory::token::Bearer;
use crate::directory::{Accounts, Directory, now};

/// How long a connection may say nothing, in seconds; a command asks at once.
const SILENT_SECONDS_MAX: u64 = 60;

/// Milliseconds that the workers are given to publish their figures: many turns of their loop.
const REFRESH_MS: u64 = 20;

/// What a connection works on.
pub(super) struct Desk<D> {
    pub(super) accounts: Arc<Accounts<D>>,
    pub(super) server: Arc<dyn Server>,
    pub(super) whereabouts: Whereabouts,
}

impl<D: Directory> Desk<D> {
    /// Serves one connection.
    pub(super) async fn serve(&self, stream: UnixStream) -> io::Result<()> {
        if !is_permitted(&stream)? {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let (reader, mut writer) = stream.into_split();
        let mut reader = BufReader::new(reader);
        loop {
            let silence = Duration::from_secs(SILENT_SECONDS_MAX);
            let mut line = Vec::new();
            let mut limited = (&mut reader).take(REQUEST_BYTES_MAX);
            let read = tokio::time::timeout(silence, limited.read_until(b'\n', &mut line)).await;
            if read?? == 0 {
                return Ok(());
            }
            let response = match serde_json::from_slice(&line) {
                Ok(request) => self.respond(request).await,
                Err(error) => Response::Refused(format!("this is no request: {error}")),
            };
            let mut text = serde_json::to_vec(&response)?;
            text.push(b'\n');
            writer.write_all(&text).await?;
            if line.last() != Some(&b'\n') {
                return Ok(()); // too long, or hung up in mid-line: what follows is no request
            }
        }
    }

    async fn respond(&self, request: Request) -> Response {
        match request {
            Request::Ping => Response::Ok(Reply::Pong(std::process::id())),
            Request::Status => {
                self.server.refresh();
                tokio::time::sleep(Duration::from_millis(REFRESH_MS)).await;
                Response::Ok(Reply::Status(Box::new(self.server.status())))
            }
            Request::Presence(uins) if uins.len() > USERS_MAX => {
                Response::Refused(format!("ask about {USERS_MAX} users at most"))
            }
            Request::Presence(uins) => {
                let seen = self.server.presences(uins.into_iter().map(Uin).collect()).await;
                Response::Ok(Reply::Presence(seen))
            }
            Request::Stop => {
                self.server.stop(Stop::Asked);
                Response::Ok(Reply::Stopping)
            }
            Request::Backup(to) => match self.server.begin_backup(&to) {
                Ok(()) => Response::Ok(Reply::Backup(self.server.backup_state())),
                Err(reason) => Response::Refused(reason),
            },
            Request::BackupState => Response::Ok(Reply::Backup(self.server.backup_state())),
            Request::ReloadTokens => self.reload_tokens(),
            Request::CheckToken(token) => self.check_token(&token.0),
            Request::Account(request) => {
                let Self { accounts, server, whereabouts } = self;
                match handle_live(accounts, server, whereabouts, request).await {
                    Ok(reply) => Response::Ok(Reply::Account(reply)),
                    Err(error) => Response::Refused(error.to_string()),
                }
            }
        }
    }

    fn reload_tokens(&self) -> Response {
        let Some(tokens) = self.accounts.tokens() else { return no_tokens() };
        match tokens.reload() {
            Ok(keys) => Response::Ok(Reply::Keys(keys)),
            Err(error) => Response::Refused(format!("{error}; the keys of before stay")),
        }
    }

    fn check_token(&self, token: &str) -> Response {
        let Some(tokens) = self.accounts.tokens() else { return no_tokens() };
        match tokens.check(token.as_bytes(), now()) {
            Ok(Bearer { name, label }) => Response::Ok(Reply::Bearer(name, label)),
            Err(refusal) => {
                Response::Refused(format!("{}: the token is not taken: {refusal}", refusal.code()))
            }
        }
    }
}

fn no_tokens() -> Response {
    let reason = "this server takes no tokens; start it with the option token-keys";
    Response::Refused(reason.to_owned())
}

/// Whether the other process belongs to the server's user, or to root.
fn is_permitted(stream: &UnixStream) -> io::Result<bool> {
    let peer = stream.peer_cred()?.uid();
    Ok(peer == 0 || peer == rustix::process::geteuid().as_raw())
}
