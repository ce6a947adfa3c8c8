//! The commands of `tern`: what people and scripts say and see.
//!
//! Results go to standard output, everything else to standard error. Each command ends with an
//! [`Exit`].

mod account;
mod backup;
mod block;
mod chat;
mod demo;
mod device;
mod exit;
mod folder;
mod group;
mod history;
mod options;
mod output;
mod read;
mod recall;
mod recv;
mod repair;
mod restore;
mod send;
mod serve;
mod status;
mod stop;
mod tokens;
mod trace;
mod user;

use std::io::IsTerminal;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

pub use exit::Exit;
pub(crate) use folder::FolderArgs;
pub(crate) use output::{fail, print};

/// What `tern` alone says after its commands.
const FIRST_STEPS: &str = "\
Try first:
  tern demo                        everything at once, on a lossy link, in half a minute
  tern serve                       a server on this machine, kept in ./tern-data
  tern user add ann                a user with a first device; then bob, then:
                                   tern chat --as ann --to bob
";

/// An instant-messaging server for native clients on lossy mobile networks.
#[derive(Debug, Parser)]
#[command(name = "tern", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show everything at once, in half a minute: a server and two devices on bad links, with kills
    Demo(demo::Args),
    /// Be one of the demo's devices
    #[command(hide = true)]
    DemoDevice(demo::actor::Args),
    /// Run a server on this machine, until SIGTERM, SIGINT or `tern stop`
    Serve(serve::Args),
    /// Talk with a user, in a terminal
    Chat(chat::Args),
    /// Send messages, from the command line or one per line of standard input
    Send(send::Args),
    /// Print messages as they come, and go on where the last time stopped
    Recv(recv::Args),
    /// Take back a message that was sent
    Recall(recall::Args),
    /// Say otherwise what a message that was sent says
    Edit(recall::EditArgs),
    /// Take no more messages from a user, outside of groups
    Block(block::Args),
    /// Take messages from a blocked user again
    Unblock(block::Args),
    /// List whom a user has blocked
    Blocked(block::ListArgs),
    /// Mark what a device has printed as read, for all devices of its user
    Read(read::ReadArgs),
    /// Count what is unread
    Unread(read::UnreadArgs),
    /// Look back in a channel, from the newest message on
    History(history::Args),
    /// Make groups, change them, show who is in one
    Group(group::Args),
    /// Add users, list and rename them, shut them out and let them in; a running server follows at
    /// once
    User(user::Args),
    /// Add devices to users, list, rename and revoke them, give them new secrets; a running server
    /// follows at once
    Device(device::Args),
    /// The keys by which tokens of your own system are checked
    Tokens(tokens::Args),
    /// Show how the server does
    Status(status::Args),
    /// Copy a data folder into a new one, while its server runs or without one, and verify the copy
    Backup(backup::Args),
    /// Make a data folder from what `tern backup` made
    Restore(restore::Args),
    /// List what is damaged in the logs of a folder, and accept it as lost; while no server runs
    Repair(repair::Args),
    /// Say where a message is: in the log, and on its way to each device; beside a server or
    /// without one
    Trace(trace::Args),
    /// Have the server go down in order, as SIGTERM does
    Stop(stop::Args),
    /// List what can be set, each option with its unit, default and cost
    Options(options::Args),
}

/// Runs the command line of this process.
pub fn main() -> Exit {
    log_to_stderr();
    let command = Cli::command().after_help(format!("{FIRST_STEPS}\n{}", Exit::help()));
    let parsed = command
        .try_get_matches()
        .and_then(|matches| <Cli as clap::FromArgMatches>::from_arg_matches(&matches));
    match parsed {
        Ok(cli) => run(cli.command),
        Err(help) => {
            let _ = help.print();
            match help.kind() {
                ErrorKind::DisplayHelp
                | ErrorKind::DisplayVersion
                | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Exit::Ok,
                _ => Exit::Usage,
            }
        }
    }
}

fn run(command: Command) -> Exit {
    match command {
        Command::Demo(args) => demo::run(&args),
        Command::DemoDevice(args) => demo::actor::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Chat(args) => chat::run(args),
        Command::Send(args) => send::run(args),
        Command::Recv(args) => recv::run(args),
        Command::Recall(args) => recall::run(args),
        Command::Edit(args) => recall::run_edit(args),
        Command::Block(args) => block::run(args, true),
        Command::Unblock(args) => block::run(args, false),
        Command::Blocked(args) => block::run_list(args),
        Command::Read(args) => read::read(args),
        Command::Unread(args) => read::unread(args),
        Command::History(args) => history::run(args),
        Command::Group(args) => group::run(args),
        Command::User(args) => user::run(args),
        Command::Device(args) => device::run(args),
        Command::Tokens(args) => tokens::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Backup(args) => backup::run(&args),
        Command::Restore(args) => restore::run(&args),
        Command::Repair(args) => repair::run(&args),
        Command::Trace(args) => trace::run(&args),
        Command::Stop(args) => stop::run(&args),
        Command::Options(args) => options::run(&args),
    }
}

/// Events go to standard error, warnings and worse unless `TERN_LOG` or `RUST_LOG` says otherwise.
fn log_to_stderr() {
    let filter = ["TERN_LOG", "RUST_LOG"]
        .into_iter()
        .find_map(|variable| EnvFilter::try_from_env(variable).ok())
        .unwrap_or_else(|| EnvFilter::new("warn"));
    let colours = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours);
    lines.with_writer(std::io::stderr).init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
