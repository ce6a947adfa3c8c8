//! `logview channel`, `message` and `export`: what one channel's messages are, and which are not
//! there.

use std::io;
use std::ops::ControlFlow;

use serde_json::json;
use tern_core::log::{Links, Record};
use tern_protocol::{ChannelId, MessageId, Uin};

use crate::checkpoints;
use crate::cli::{ChannelArgs, Exit};
use crate::folder::Folder;
use crate::output::{Out, hex};
use crate::shard::{Shard, State};
use crate::show::{message, message_json, message_line, problem_line};

/// Reads `A-B` or `gN`, as [`ChannelId`] prints it.
pub(crate) fn parse(text: &str) -> Result<ChannelId, String> {
    let wrong = || format!("{text} is no channel: give A-B for two users, gN for a group");
    let number = |text: &str| text.parse::<u64>().ok().filter(|number| *number != 0);
    match text.strip_prefix('g') {
        Some(group) => number(group).map(ChannelId::group).ok_or_else(wrong),
        None => {
            let (a, b) = text.split_once('-').ok_or_else(wrong)?;
            let (a, b) = (number(a).ok_or_else(wrong)?, number(b).ok_or_else(wrong)?);
            Ok(ChannelId::direct(Uin(a), Uin(b)))
        }
    }
}

/// Follows a channel through its shard's log: are its ids contiguous, do its links lead back?
struct Chain {
    channel: ChannelId,
    /// Id and offset of the last message seen; of one that is past its retention, offset 0.
    last: (u64, u64),
}

impl Chain {
    /// The ids that are missing before this message, and what is wrong with its link.
    fn step(&mut self, at: u64, id: u64, links: Links) -> (Option<(u64, u64)>, Option<String>) {
        let (last, before) = self.last;
        let lost = (id > last + 1).then(|| (last + 1, id - 1));
        let wrong = if id <= last {
            Some(format!("message {id} at offset {at} comes after message {last}"))
        } else if lost.is_none() && links.channel.0 != before && !self.begins(last, before) {
            let to = links.channel.0;
            Some(format!("message {id} links back to offset {to}, message {last} is at {before}"))
        } else {
            None
        };
        self.last = (id, at);
        (lost, wrong)
    }

    /// Whether the message before is past its retention, so that nobody knows where it was.
    fn begins(&self, last: u64, before: u64) -> bool {
        last > 0 && before == 0
    }
}

pub(crate) fn run(folder: &Folder, args: ChannelArgs, out: &mut Out) -> io::Result<Exit> {
    let shard = read_shard(folder, args.channel)?;
    let oldest = checkpoints::oldest(folder, shard.id, args.channel)?;
    let mut chain = Chain { channel: args.channel, last: (oldest - 1, 0) };
    let (mut exit, mut count) = (Exit::Well, 0u64);
    let (from, to) = (args.from.max(1), args.to.min(oldest - 1));
    if from <= to {
        print_gone("expired", args.channel, from, to, out)?;
    }
    shard.records(|at, record| {
        let Some((push, content)) = message(&record) else { return next() };
        if push.channel != chain.channel {
            return next();
        }
        let id = push.id.get();
        let (lost, wrong) = chain.step(at, id, record.links);
        let ids = lost.map(|(from, to)| (from.max(args.from), to.min(args.to)));
        if let Some((from, to)) = ids.filter(|(from, to)| from <= to) {
            exit = Exit::Damaged;
            print_gone("lost", args.channel, from, to, out)?;
        }
        if (args.from..=args.to).contains(&id) {
            count += 1;
            out.fact(|| message_json(push, content), || message_line(push, content))?;
            if let Some(wrong) = wrong {
                exit = Exit::Damaged;
                complain(&wrong);
            }
        }
        next()
    })?;
    out.flush()?;
    for problem in shard.problems.iter().filter(|_| shard.is_damaged()) {
        exit = Exit::Damaged;
        complain(&format!("shard {}: {}", shard.id.0, problem_line(&shard, problem)));
    }
    if count == 0 {
        complain(&format!("no message of {} in that range in shard {}", args.channel, shard.id.0));
    }
    Ok(exit)
}

pub(crate) fn one(folder: &Folder, channel: ChannelId, id: u64, out: &mut Out) -> io::Result<Exit> {
    let shard = read_shard(folder, channel)?;
    let mut found = false;
    shard.records(|at, record| {
        let push = message(&record).filter(|(push, _)| push.channel == channel);
        if push.is_none_or(|(push, _)| push.id.get() != id) {
            return next();
        }
        found = true;
        print_one(&shard, at, &record, out)?;
        io::Result::Ok(ControlFlow::Break(()))
    })?;
    out.flush()?;
    if !found {
        let oldest = checkpoints::oldest(folder, shard.id, channel)?;
        let why = if id < oldest { ": it is past its retention" } else { "" };
        complain(&format!("message {id} of {channel} is not in shard {}{why}", shard.id.0));
        let lines = shard.problems.iter().map(|problem| problem_line(&shard, problem));
        lines.for_each(|line| complain(&line));
    }
    Ok(Exit::well_if(found))
}

fn print_one(shard: &Shard, at: u64, record: &Record<'_>, out: &mut Out) -> io::Result<()> {
    let Some((push, content)) = message(record) else { return Ok(()) };
    let segment = shard.segment_at(at);
    let file = segment.map_or(String::new(), |segment| segment.file.path.display().to_string());
    let base = segment.and_then(|segment| segment.file.decoder).map_or(0, |d| d.header.base);
    let Links { channel, device, skip } = record.links;
    let sealed = segment.is_some_and(|segment| segment.state != State::Active);
    let proven = at < shard.proven || shard.clean || sealed;
    out.fact(
        || {
            let mut object = message_json(push, content);
            object["shard"] = shard.id.0.into();
            object["at"] = at.to_string().into();
            object["file"] = file.clone().into();
            object["byte"] = (at - base).to_string().into();
            object["proven"] = proven.into();
            object["links"] = json!({"channel": channel.0.to_string(),
                "device": device.0.to_string(), "skip": skip.0.to_string()});
            object
        },
        || {
            let skip_id = MessageId(push.id.get()).skip();
            let start = shard.start();
            let or_none = |at: u64| match at {
                0 => "none".to_owned(),
                at if at < start => format!("{at} (deleted)"),
                at => at.to_string(),
            };
            format!(
                "{} {}\nstands     shard {}, offset {at}, byte {} of {file}\ndurable    {}\n\
                 previous   message of the channel: {}; of the device: {}; message {skip_id}: {}\n\
                 content    type {}, {} bytes: {}",
                push.channel,
                message_line(push, content),
                shard.id.0,
                at - base,
                if proven { "proven by the log" } else { "not proven by the log yet" },
                or_none(channel.0),
                or_none(device.0),
                or_none(skip.0),
                push.content_type,
                content.len(),
                hex(content),
            )
        },
    )
}

/// Ids that are not there, and why: "lost", or "expired".
fn print_gone(why: &str, channel: ChannelId, from: u64, to: u64, out: &mut Out) -> io::Result<()> {
    let said = why.to_uppercase();
    out.fact(
        || {
            json!({"channel": channel.to_string(),
                   why: {"from": from.to_string(), "to": to.to_string()}})
        },
        || match to - from {
            0 => format!("{from:>6}  {said}"),
            _ => format!("{from:>6}  to {to} {said}"),
        },
    )
}

fn read_shard(folder: &Folder, channel: ChannelId) -> io::Result<Shard> {
    let shard = folder.shard_of(channel).ok_or_else(|| io::Error::other("there are no shards"))?;
    if let Err(why) = &folder.facts {
        complain(&format!("{why}; going by {} shard folders", folder.shards));
    }
    Shard::read(folder, shard, |_| {})
}

fn next() -> io::Result<ControlFlow<()>> {
    Ok(ControlFlow::Continue(()))
}

fn complain(what: &str) {
    eprintln!("logview: {what}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_core::log::Offset;

    #[test]
    fn channels_are_read_as_they_are_printed() {
        for text in ["1-2", "7-7", "g5"] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        assert_eq!(parse("9-3").unwrap().to_string(), "3-9");
        for text in ["", "g", "g0", "0-1", "1", "1-", "a-b", "1-2-3"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_chain_names_holes_repeats_and_wrong_links() {
        let links = |channel| Links { channel: Offset(channel), ..Links::default() };
        let mut chain = Chain { channel: ChannelId::group(1), last: (0, 0) };
        assert_eq!(chain.step(100, 1, links(0)), (None, None));
        assert_eq!(chain.step(200, 2, links(100)), (None, None));
        assert_eq!(chain.step(300, 5, links(280)), (Some((3, 4)), None));
        assert!(chain.step(400, 6, links(200)).1.unwrap().contains("links back to offset 200"));
        assert!(chain.step(500, 6, links(400)).1.unwrap().contains("comes after"));
        let mut expired = Chain { channel: ChannelId::group(1), last: (7, 0) };
        assert_eq!(expired.step(900, 8, links(333)), (None, None), "it leads to what is deleted");
        assert!(expired.step(950, 9, links(333)).1.is_some(), "and this one to the wrong place");
    }
}
