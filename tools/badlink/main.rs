//! `badlink`: puts a bad link between clients and a server, and says what it did.
#![forbid(unsafe_code)]

mod cli;

mod report;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use cli::Arguments;
use tern_badlink::Relay;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(wrong) => {
            eprintln!("badlink: {wrong}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let profiles = arguments.profiles()?;
    if arguments.list {
        say(report::list(&profiles).trim_end());
        return Ok(());
    }
    let plan = arguments.plan(&profiles)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
    runtime.block_on(async {
        let (listen, server) = (plan.listen, plan.server);
        let relay = Relay::start(plan).await;
        let relay = relay.map_err(|error| format!("cannot relay on {listen}: {error}"))?;
        say(&format!("badlink: ready on {} to {server}", relay.address()));
        relay_until_the_end(arguments, &relay).await;
        say(report::totals(&relay.figures()).trim_end());
        Ok(())
    })
}

/// Ends with the time that was given, or when a person has enough.
async fn relay_until_the_end(arguments: &Arguments, relay: &Relay) {
    let end = async {
        match arguments.seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(end);
    let mut tick = tokio::time::interval(Duration::from_secs(arguments.every.max(1)));
    tick.tick().await; // the first comes at once
    loop {
        tokio::select! {
            () = &mut end => return,
            _ = tokio::signal::ctrl_c() => return,
            _ = tick.tick(), if arguments.every > 0 => say(&report::line(&relay.figures())),
        }
    }
}

#[expect(clippy::print_stdout, reason = "a command speaks to people")]
fn say(text: &str) {
    println!("{text}");
}
