//! `tern serve`: a server, until SIGTERM, SIGINT or `tern stop`.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::SocketAddr;

use super::{Exit, fail, print};
use crate::options::{Environment, Flags, Options, Values};
use crate::serve::{self, Event, Plan, Recovered};

/// The command line of `tern serve`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    flags: Flags,
    /// When ready, also write the address as a line to this descriptor of a pipe, and close it
    #[arg(long, value_name = "N")]
    ready_fd: Option<u32>,
}

pub(super) fn run(args: &Args) -> Exit {
    let loaded =
        Environment::of_process().and_then(|environment| Options::load(&args.flags, &environment));
    let (options, values) = match loaded {
        Ok(loaded) => loaded,
        Err(error) => return fail(Exit::Usage, error),
    };
    let ended = serve::run(&options, |event| say(&event, &options, &values, args.ready_fd));
    match ended {
        Ok(()) => print("tern: stopped in order\n"),
        Err(error) if error.is_in_use() => fail(Exit::InUse, error),
        Err(error) => fail(Exit::Failed, error),
    }
}

/// A reader of standard output that went away does not end the server.
fn say(event: &Event, options: &Options, values: &Values, ready_fd: Option<u32>) {
    match event {
        Event::Plan(plan) => drop(print(&plan_text(plan, options, values))),
        Event::Recovering { records } => {
            print(&format!("recovering {records} records so far\n"));
        }
        Event::Recovered(recovered) => drop(print(&recovered_text(recovered))),
        Event::Ready(address) => {
            print(&format!("tern: ready on {address}\n"));
            if let Some(number) = ready_fd {
                write_ready(number, *address);
            }
        }
        Event::Draining(why) => {
            print(&format!("tern: going down, {why}; a second signal ends it at once\n"));
        }
    }
}

/// Opened by its name below /proc, which gives a descriptor of our own to the same pipe.
fn write_ready(number: u32, address: SocketAddr) {
    let pipe = OpenOptions::new().write(true).open(format!("/proc/self/fd/{number}"));
    if let Err(error) = pipe.and_then(|mut pipe| writeln!(pipe, "{address}")) {
        tracing::warn!(%error, number, "the ready line can't be written to this descriptor");
    }
}

fn plan_text(plan: &Plan, options: &Options, values: &Values) -> String {
    let Plan { data, listen, pin, workers, shards } = plan;
    let data = data.display();
    let mut text = format!(
        "\
data       {data}
listen     {listen} (UDP, QUIC)
pin        {pin} (SHA-256 of the certificate)
threads    {workers} workers, {} commit, 1 I/O, 1 control
logs       {shards} shards, acks wait for the {}
limits     {} bytes a message; {} messages/s a device, {} at once; {} new channels/h a user
",
        options.commit_threads,
        options.durability,
        options.content_bytes_max,
        options.sends_per_second,
        options.sends_burst,
        options.channels_per_hour,
    );
    if let Some(path) = options.keylog.path() {
        let path = path.display();
        text += &format!(
            "WARNING    NOTHING IS PRIVATE: the secrets of all connections go to {path}\n"
        );
    }
    for (name, value, source) in values.changed() {
        text += &format!("set        {name} = {value}, by {source}\n");
    }
    text + &format!("next       tern user add NAME --data {data}\n")
}

fn recovered_text(recovered: &Recovered) -> String {
    let Recovered { records, bytes_reserved, notes, took } = recovered;
    let text = format!(
        "recovered  {records} records in {} ms; {} MiB of disk reserved\n",
        took.as_millis(),
        bytes_reserved >> 20
    );
    notes.iter().fold(text, |text, note| text + &format!("note       {note}\n"))
}
