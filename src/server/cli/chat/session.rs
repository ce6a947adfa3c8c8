//! What `chat`, `send` and `recv` have in common: a device's session from its profile, whom they
//! write to, and how they speak of what happens to the connection.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tern_client::machine::{End, Event, State};
use tern_client::profile::{Profile, ProfileError, ProfileLock};
use tern_client::store::DiskStore;
use tern_client::{Client, Events, Options, Problem};
use tern_protocol::{ChannelId, Code, Uin};
use tokio::sync::mpsc;

use crate::cli::folder::strange;
use crate::cli::group::parse_group;
use crate::cli::{Exit, FolderArgs, fail};
use crate::control::protocol::{AccountReply, AccountRequest};

/// Lines read ahead of what was sent.
const LINES_AHEAD: usize = 64;

/// As whom, and where to.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SessionArgs {
    /// The device to be: a user's first device, or another one by its label
    #[arg(long = "as", value_name = "NAME[.LABEL]")]
    who: String,
    /// The server, or several of them with commas between, of which the nearest is taken [default:
    /// from the profile]
    #[arg(long, value_name = "HOST:PORT")]
    server: Option<String>,
    /// SHA-256 of the server's certificate [default: from the profile]
    #[arg(long, value_name = "SHA256")]
    pin: Option<String>,
    /// How much of its channels a new device takes when it starts for the first time: all, none,
    /// or so many messages of each; `tern history` shows the rest
    #[arg(long, value_name = "all|none|MESSAGES", default_value = "all", value_parser = parse_taken)]
    take_history: Taken,
    #[command(flatten)]
    folder: FolderArgs,
}

/// How many messages of each channel a new device takes; all, if `None`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Taken(Option<u32>);

/// A device that is connected, or tries to be.
pub(crate) struct Session {
    pub(crate) profile: Profile,
    pub(crate) client: Client,
    pub(crate) events: Events,
    /// Whether the person was told that there is no connection.
    offline: bool,
    _lock: ProfileLock,
}

impl SessionArgs {
    /// Takes the device for this process and starts it; within a tokio runtime.
    pub(crate) fn open(&self) -> Result<Session, Exit> {
        let path = profile_path(&self.data()?, &self.who)?;
        let mut profile = Profile::load(&path).map_err(profile_exit)?;
        let lock = profile.lock(&path).map_err(profile_exit)?;
        if let Some(server) = &self.server {
            profile.server.clone_from(server);
        }
        profile.pin = self.pin.clone().or(profile.pin);
        let failed = |error: &dyn std::fmt::Display| fail(Exit::Failed, error);
        let store = Profile::store_path(&path);
        let store = DiskStore::open(&store, profile.uin(), profile.device())
            .map_err(|error| failed(&error))?;
        let mut options = Options::from_profile(&profile, Box::new(store))
            .map_err(|error| fail(Exit::Usage, format!("--pin: {error}")))?;
        options.tuning.newest_wanted = self.take_history.0;
        let (client, events) = Client::connect(options).map_err(|error| failed(&error))?;
        Ok(Session { profile, client, events, offline: false, _lock: lock })
    }

    /// The channel with `peer`: a group as g and its number, or else a user.
    pub(crate) fn channel(&self, me: Uin, peer: &str) -> Result<ChannelId, Exit> {
        match parse_group(peer) {
            Ok(group) => Ok(group),
            Err(_) => Ok(ChannelId::direct(me, self.user(peer)?)),
        }
    }

    /// A user: a uin, or the name of a user whose profile is in the data folder, or whom the
    /// server of the data folder knows.
    pub(crate) fn user(&self, peer: &str) -> Result<Uin, Exit> {
        match peer.parse::<u64>() {
            Ok(0) => return Err(fail(Exit::Usage, "uins count from 1")),
            Ok(uin) => return Ok(Uin(uin)),
            Err(_) => {}
        }
        match Profile::load(&profile_path(&self.data()?, peer)?) {
            Ok(profile) => return Ok(profile.uin()),
            Err(ProfileError::Missing(_)) => {}
            Err(error) => return Err(profile_exit(error)),
        }
        let request = AccountRequest::Resolve { name: peer.to_owned() };
        match self.folder.ask_accounts(&request)? {
            AccountReply::User(user) => Ok(Uin(user.uin)),
            other => Err(strange(&other)),
        }
    }

    fn data(&self) -> Result<PathBuf, Exit> {
        Ok(self.folder.options()?.data)
    }
}

fn profile_path(data: &Path, who: &str) -> Result<PathBuf, Exit> {
    if who.is_empty() || who.starts_with('.') || who.contains(std::path::is_separator) {
        return Err(fail(Exit::Usage, format!("`{who}` is no name of a user or device")));
    }
    Ok(Profile::path(data, who))
}

fn profile_exit(error: ProfileError) -> Exit {
    let exit = match error {
        ProfileError::InUse(..) => Exit::InUse,
        ProfileError::Missing(_) | ProfileError::Io(..) | ProfileError::Content(..) => Exit::Failed,
    };
    fail(exit, error)
}

impl Session {
    /// Tells people what happened to the connection or to a channel's history; an error if that
    /// was the end.
    pub(crate) fn tell(&mut self, event: &Event) -> Result<(), Exit> {
        match event {
            Event::State(State::Online { .. }) if self.offline => {
                self.offline = false;
                note("connected again");
            }
            Event::State(State::Offline { code, .. }) => return self.tell_offline(*code),
            Event::State(State::Ended(end)) => return Err(ended(*end)),
            Event::State(State::Connecting | State::Online { .. }) => {}
            // What was said before somebody joined is nobody's loss.
            // Nor is what was taken back before it came, or was not wanted.
            Event::Gap { code: Code::NotVisible | Code::Recalled | Code::Skipped, .. } => {}
            Event::Gap { channel, from, to, code } => {
                let sentence = code.sentence();
                note(&format!("messages {from} to {to} of {channel} never come: {sentence}"));
            }
            Event::HistoryRestarted { channel, at } => {
                note(&format!(
                    "the server lost the end of {channel}: what was shown from message {at} on \
                     is void"
                ));
            }
            Event::ServerError { code, kind } => {
                note(&format!("the server did not act on a {kind} frame: {code}"));
            }
            Event::Message(_)
            | Event::Result(_)
            | Event::Read(_)
            | Event::Receipt(_)
            | Event::GroupReceipts(_)
            | Event::History(_)
            | Event::Unread(_)
            | Event::Identity { .. }
            | Event::GroupPage(_)
            | Event::Blocked { .. }
            | Event::BlockPage(_)
            | Event::GroupRefused { .. } => {}
        }
        Ok(())
    }

    /// Waits until all that was confirmed is on the disk.
    pub(crate) async fn remember(&self) -> Result<(), Exit> {
        self.client.remembered().await.map_err(|_| ended(End::StoreFailed))
    }

    fn tell_offline(&mut self, code: Option<Code>) -> Result<(), Exit> {
        let problem = self.client.problem();
        if let Some(problem @ Problem::Tls(_)) = problem {
            return Err(fail(Exit::Failed, problem));
        }
        if !std::mem::replace(&mut self.offline, true) {
            let why = match (code, problem) {
                (Some(code), _) => format!("{code}: {}", code.sentence()),
                (None, Some(problem)) => problem.to_string(),
                (None, None) => "no connection".to_owned(),
            };
            note(&format!("{why}; trying again"));
        }
        Ok(())
    }
}

fn ended(end: End) -> Exit {
    match end {
        End::Refused(code) => fail(Exit::Refused, format!("{code}: {}", code.sentence())),
        End::StoreFailed => fail(
            Exit::Failed,
            "the device's store can't be written; make room on its disk and start again",
        ),
        End::LoggedOut => fail(Exit::Failed, "the session has ended"),
    }
}

/// Says something to people, beside the results.
pub(crate) fn note(text: &str) {
    // Without a standard error there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "tern: {text}");
}

/// Runs a command to its end. The threads that read standard input are left behind.
pub(crate) fn run(command: impl Future<Output = Result<Exit, Exit>>) -> Exit {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => {
            let done = runtime.block_on(command);
            runtime.shutdown_background();
            done.unwrap_or_else(|exit| exit)
        }
        Err(error) => fail(Exit::Failed, format!("no runtime: {error}")),
    }
}

/// Prints a result, flushed, while the session goes on: a reader that is slow must not cost the
/// connection. An error if nobody reads any more.
pub(crate) async fn print(text: String) -> Result<(), Exit> {
    let printed = tokio::task::spawn_blocking(move || crate::cli::print(&text)).await;
    match printed {
        Ok(Exit::Ok) => Ok(()),
        Ok(exit) => Err(exit),
        Err(error) => Err(fail(Exit::Failed, format!("printing failed: {error}"))),
    }
}

/// The lines of standard input, without their ends; read by a thread of its own, since a read
/// can't be given up.
pub(crate) fn lines() -> Result<mpsc::Receiver<Vec<u8>>, Exit> {
    let (sender, receiver) = mpsc::channel(LINES_AHEAD);
    let read = move || {
        for line in std::io::stdin().lock().split(b'\n') {
            match line.map(|line| sender.blocking_send(line)) {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return,
                Err(error) => return note(&format!("standard input: {error}")),
            }
        }
    };
    let thread = std::thread::Builder::new().name("stdin".to_owned()).spawn(read);
    thread.map_err(|error| fail(Exit::Failed, format!("no thread: {error}")))?;
    Ok(receiver)
}

/// Ends when the process is asked to.
pub(crate) async fn asked_to_end() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        }
        // Then the signal's own default ends the process.
        Err(_) => std::future::pending().await,
    }
}

/// Ends when the time is over; never without one.
pub(crate) async fn time_is_over(end: Option<tokio::time::Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

fn parse_taken(text: &str) -> Result<Taken, String> {
    match text {
        "all" => Ok(Taken(None)),
        "none" => Ok(Taken(Some(0))),
        number => number
            .parse()
            .map(|newest| Taken(Some(newest)))
            .map_err(|_| "it is all, none, or a number of messages".to_owned()),
    }
}

/// Reads a time as people write it: `500ms`, `30s`, `2m`, or seconds alone.
pub(crate) fn parse_time(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let ms = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("a time is a number with ms, s, m or h, such as 30s".to_owned()),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(ms))
        .map(Duration::from_millis)
        .ok_or_else(|| "a time is a number with ms, s, m or h, such as 30s".to_owned())
}

/// Content as one line that can do nothing to a terminal: control characters, and the backslash
/// that marks them, are written as escapes.
pub(crate) fn one_line(content: &[u8]) -> String {
    let text = String::from_utf8_lossy(content);
    text.chars().fold(String::with_capacity(text.len()), |mut line, c| {
        if c.is_control() || c == '\\' || is_direction_mark(c) {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
        line
    })
}

/// Whether a character changes the direction or the place of those around it.
fn is_direction_mark(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_people_write_them() {
        for (text, ms) in [("500ms", 500), ("30s", 30_000), ("2m", 120_000), ("7", 7_000)] {
            assert_eq!(parse_time(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "-1s", "1d", "1.5s", "99999999999999999999s", "18446744073709551615h"]
        {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_a_new_device_takes() {
        let read = |text| parse_taken(text).map(|taken| taken.0);
        assert_eq!([read("all"), read("none"), read("50")], [Ok(None), Ok(Some(0)), Ok(Some(50))]);
        assert!(read("some").is_err() && read("-1").is_err());
    }

    #[test]
    fn content_stays_on_its_line_and_leaves_the_terminal_alone() {
        assert_eq!(one_line("a b\u{e9}\u{1f600}".as_bytes()), "a b\u{e9}\u{1f600}");
        assert_eq!(one_line(b"a\nb\\n\t"), "a\\nb\\\\n\\t");
        assert_eq!(one_line(b"\x1b[2J"), "\\u{1b}[2J");
        assert_eq!(one_line("\u{202e}x".as_bytes()), "\\u{202e}x");
        assert_eq!(one_line(b"\xff"), "\u{fffd}");
    }

    #[test]
    fn names_stay_within_the_folder() {
        let data = Path::new("data");
        assert!(profile_path(data, "ann").is_ok());
        for bad in ["", "..", "../ann", "a/b", ".hidden"] {
            assert!(profile_path(data, bad).is_err(), "{bad}");
        }
    }
}
