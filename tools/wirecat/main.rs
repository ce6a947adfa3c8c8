//! `wirecat`: shows what Tern's clients and servers said, from a capture and its keys.
#![forbid(unsafe_code)]

mod cli;

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use clap::Parser as _;
use cli::Arguments;
use tern_wirecat::capture::{CaptureError, Item, Live, Reader};
use tern_wirecat::keylog::KeyLog;
use tern_wirecat::lua;
use tern_wirecat::show::extract::Extract;
use tern_wirecat::show::life::Life;
use tern_wirecat::show::{Filter, filter, json, svg, table, text};
use tern_wirecat::{Decoder, Event};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut out = io::BufWriter::new(io::stdout().lock());
    let done = run(&arguments, &mut out).and_then(|()| out.flush().map_err(Failure::Output));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Who reads has enough.
        Err(Failure::Output(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(Failure::Output(error)) => fail(&format!("cannot write: {error}")),
        Err(Failure::Said(wrong)) => fail(&wrong),
    }
}

fn fail(wrong: &str) -> ExitCode {
    eprintln!("wirecat: {wrong}");
    ExitCode::FAILURE
}

/// Why it ends early.
enum Failure {
    /// What was to be shown can't be.
    Output(io::Error),
    /// Something for people.
    Said(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

fn said(error: impl ToString) -> Failure {
    Failure::Said(error.to_string())
}

fn run(arguments: &Arguments, out: &mut impl Write) -> Result<(), Failure> {
    if arguments.lua {
        return Ok(write!(out, "{}", lua::dissector())?);
    }
    let mut decoder = Decoder::new(key_log(arguments)?);
    let mut source = open(arguments)?;
    let mut wanted = arguments.filter();
    let mut extract = Extract::new(arguments.secrets);
    let mut events = Vec::new();
    let broken = loop {
        let new = match source.next_item() {
            Ok(Some(item)) => decoder.handle(&item),
            Ok(None) => break None,
            Err(error) => break Some(error),
        };
        if arguments.needs_all() {
            events.extend(new);
            continue;
        }
        match arguments.extract {
            true => write_frames(arguments, (&mut wanted, &mut extract), &new, out)?,
            false => show(arguments, &mut wanted, &new, out)?,
        }
        if arguments.interface.is_some() {
            out.flush()?;
        }
    };
    events.extend(decoder.end());
    events.iter().for_each(|event| wanted.learn(event));
    match arguments.life {
        Some(_) => show_life(arguments, &events, out)?,
        None if arguments.extract => {} // at its end a capture has no frame more
        None => show(arguments, &mut wanted, &events, out)?,
    }
    conclude(arguments, &decoder, out)?;
    source.complain();
    broken.map_or(Ok(()), |error| Err(said(error)))
}

fn key_log(arguments: &Arguments) -> Result<KeyLog, Failure> {
    let mut log = KeyLog::default();
    for path in &arguments.keys {
        log.follow(path.clone())
            .map_err(|error| Failure::Said(format!("cannot read {}: {error}", path.display())))?;
    }
    Ok(log)
}

/// Where packets come from.
enum Source {
    File(Reader),
    Interface(Live),
}

impl Source {
    fn next_item(&mut self) -> Result<Option<Item>, CaptureError> {
        match self {
            Self::File(reader) => reader.next_item(),
            Self::Interface(live) => live.next_item(),
        }
    }

    /// Says what is missing in a capture that should have all.
    fn complain(&self) {
        if let Self::Interface(live) = self
            && live.lost() > 0
        {
            eprintln!("wirecat: {} packets passed too fast and are missing", live.lost());
        }
    }
}

fn open(arguments: &Arguments) -> Result<Source, Failure> {
    if let Some(wanted) = arguments.live() {
        return Live::listen(&wanted).map(Source::Interface).map_err(said);
    }
    let path = arguments.file.as_ref().ok_or_else(|| said("which capture?"))?;
    let reader =
        if path.as_os_str() == "-" { Reader::new(io::stdin()) } else { Reader::open(path) };
    reader.map(Source::File).map_err(said)
}

fn show(
    arguments: &Arguments,
    wanted: &mut Filter,
    events: &[Event],
    out: &mut impl Write,
) -> io::Result<()> {
    for event in events {
        wanted.learn(event);
        if arguments.quiet || !wanted.wants(event) || !filter::is_on(event, arguments.connection())
        {
            continue;
        }
        if arguments.json {
            writeln!(out, "{}", json::object(event, arguments.secrets))?;
        } else {
            writeln!(out, "{}", text::line(event, arguments.secrets))?;
        }
    }
    Ok(())
}

/// The lines of the frames that are wanted.
fn write_frames(
    arguments: &Arguments,
    (wanted, extract): (&mut Filter, &mut Extract),
    events: &[Event],
    out: &mut impl Write,
) -> io::Result<()> {
    for event in events {
        wanted.learn(event);
        let line = extract.line(event);
        let is_wanted = wanted.wants(event) && filter::is_on(event, arguments.connection());
        if let Some(line) = line.filter(|_| is_wanted) {
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

fn show_life(arguments: &Arguments, events: &[Event], out: &mut impl Write) -> Result<(), Failure> {
    let (channel, id) = arguments.life.ok_or_else(|| said("which message?"))?;
    let life = Life::of(channel, id, events).ok_or_else(|| {
        said(format!(
            "message {id} of channel {channel} is not in this capture, as far as it is decrypted"
        ))
    })?;
    write!(out, "{}", life.text())?;
    if let Some(path) = &arguments.svg {
        std::fs::write(path, svg::draw(&life))
            .map_err(|error| said(format!("cannot write {}: {error}", path.display())))?;
    }
    Ok(())
}

fn conclude(arguments: &Arguments, decoder: &Decoder, out: &mut impl Write) -> io::Result<()> {
    if !arguments.stats {
        return Ok(());
    }
    let on = arguments.connection();
    for stats in decoder.stats() {
        if on.is_some_and(|wanted| wanted != stats.connection) {
            continue;
        }
        if arguments.json {
            writeln!(out, "{}", table::object(&stats))?;
        } else {
            writeln!(out, "{}", table::text(&stats))?;
        }
    }
    if !arguments.json {
        writeln!(out, "{}", table::strays(decoder.strays(), decoder.packets()))?;
    }
    Ok(())
}
