//! The command line, and how a command ends.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use tern_protocol::{ChannelId, Uin};

use crate::folder::Folder;
use crate::output::Out;
use crate::{channel, dedup, list, records, verify};

const EXAMPLES: &str = "\
Examples:
  logview                                  shards and segments of ./tern-data
  logview --data /srv/tern verify          check every checksum, say what is damaged
  logview records --shard 0 --from 8192    what stands in a log, from an offset on
  logview channel 10001-10002              the messages of two users
  logview message 10001-10002 17           one message with its links
  logview export g5 --from 100 --to 200    a range of a group's messages as JSON Lines
  logview dedup --uin 10001                what retries of a user's devices would hit
  logview --json list | jq .state          everything can be had as JSON Lines

Exit code: 0 all is well; 1 something is damaged, missing or could not be read; 2 wrong use.
It takes no lock and writes nothing; a server may run meanwhile. In JSON, 64-bit numbers are strings.";

/// Looks into a data folder, also a live or a damaged one, and changes nothing.
#[derive(Debug, Parser)]
#[command(name = "logview", version, after_help = EXAMPLES)]
struct Cli {
    /// The data folder
    #[arg(long, global = true, default_value = "tern-data", value_name = "DIR")]
    data: PathBuf,
    /// Where the server keeps deduplication tables
    #[arg(long, global = true, default_value = "/dev/shm", value_name = "DIR")]
    memory: PathBuf,
    /// Print JSON Lines
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shards and segments with their headers and states (the default)
    List,
    /// Records of one shard, in the order of the log
    Records(records::Range),
    /// Messages of a channel, in order, and what is missing or wrongly linked
    Channel(ChannelArgs),
    /// One message with everything that its record says
    Message {
        /// The channel: A-B for two users, gN for a group
        #[arg(value_parser = channel::parse)]
        channel: ChannelId,
        /// Its id in the channel
        id: u64,
    },
    /// Check every checksum, with progress, and judge what is wrong
    Verify,
    /// Entries of the deduplication tables
    Dedup {
        /// Only this user's devices
        #[arg(long, value_parser = uin)]
        uin: Option<Uin>,
    },
    /// Messages of a channel as JSON Lines, ranges that are missing in their place
    Export(ChannelArgs),
}

/// A range of a channel.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct ChannelArgs {
    /// The channel: A-B for two users, gN for a group
    #[arg(value_parser = channel::parse)]
    pub(crate) channel: ChannelId,
    /// First id
    #[arg(long, default_value_t = 1, value_name = "ID")]
    pub(crate) from: u64,
    /// Last id
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true, value_name = "ID")]
    pub(crate) to: u64,
}

/// How a command ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    /// Everything could be read.
    Well = 0,
    /// Something is damaged or missing.
    Damaged = 1,
}

impl Exit {
    /// Damaged if either is.
    pub(crate) fn and(self, other: Self) -> Self {
        if self == Self::Well { other } else { self }
    }

    /// Well if it is true.
    pub(crate) fn well_if(well: bool) -> Self {
        if well { Self::Well } else { Self::Damaged }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Runs the command line of this process.
pub(crate) fn main() -> Exit {
    let cli = Cli::parse();
    let folder = match Folder::open(&cli.data, &cli.memory) {
        Ok(folder) => folder,
        Err(error) => {
            eprintln!("logview: can't read {}: {error}", cli.data.display());
            return Exit::Damaged;
        }
    };
    let mut out = Out::new(cli.json);
    let exit = match cli.command.unwrap_or(Command::List) {
        Command::List => list::run(&folder, &mut out),
        Command::Records(range) => records::run(&folder, &range, &mut out),
        Command::Channel(args) => channel::run(&folder, args, &mut out),
        Command::Message { channel, id } => channel::one(&folder, channel, id, &mut out),
        Command::Verify => verify::run(&folder, &mut out),
        Command::Dedup { uin } => dedup::run(&folder, uin, &mut out),
        Command::Export(args) => channel::run(&folder, args, &mut Out::new(true)),
    };
    match exit {
        Ok(exit) => exit,
        // A reader that went away (`logview records | head`) has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Well,
        Err(error) => {
            eprintln!("logview: {error}");
            Exit::Damaged
        }
    }
}

fn uin(text: &str) -> Result<Uin, std::num::ParseIntError> {
    text.parse().map(Uin)
}
