//! The command line: which capture, which keys, what to show of it.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use tern_protocol::{ChannelId, Kind, MessageId, Uin};
use tern_wirecat::capture::Wanted;
use tern_wirecat::event::ConnectionId;
use tern_wirecat::show::filter::{self, Filter};

/// Decodes a packet capture of Tern, with the secrets of a TLS key log.
///
/// `tern serve --keylog FILE` writes the secrets of all connections of a server, and a client
/// those of its own where SSLKEYLOGFILE names a file.
#[derive(Parser, Debug)]
#[command(name = "wirecat", version)]
pub struct Arguments {
    /// A pcap or pcapng file; - for standard input
    #[arg(value_name = "FILE", required_unless_present_any = ["interface", "lua"])]
    pub file: Option<PathBuf>,
    /// Instead of a file: listens on this interface, or on any; it takes the right CAP_NET_RAW
    #[arg(short, long, value_name = "NAME", conflicts_with = "file")]
    pub interface: Option<String>,
    /// With -i: only datagrams from or to this UDP port
    #[arg(long, value_name = "NUMBER", requires = "interface")]
    port: Option<u16>,
    /// With -i: for so many seconds, then it ends
    #[arg(long, value_name = "S", requires = "interface", value_parser = seconds)]
    seconds: Option<Duration>,
    /// TLS key logs; read again as they grow
    #[arg(short, long, value_name = "FILE")]
    pub keys: Vec<PathBuf>,
    /// Only frames of this user's devices and channels
    #[arg(long, value_name = "NUMBER")]
    uin: Option<u64>,
    /// Only frames that name this channel: 7-9, or g3
    #[arg(long, value_name = "CHANNEL", value_parser = filter::channel)]
    channel: Option<ChannelId>,
    /// Only frames that name this message, or a range with it
    #[arg(long, value_name = "NUMBER")]
    id: Option<u64>,
    /// Only frames of this kind, as the registry calls it; may be given several times
    #[arg(long, value_name = "KIND", value_parser = filter::kind)]
    kind: Vec<Kind>,
    /// Only this connection
    #[arg(long, value_name = "NUMBER")]
    connection: Option<u32>,
    /// A JSON object on each line
    #[arg(long)]
    pub json: bool,
    /// Ends with the statistics of each connection
    #[arg(long)]
    pub stats: bool,
    /// No events, only what comes at the end
    #[arg(short, long)]
    pub quiet: bool,
    /// Prints a dissector for Wireshark, and ends
    #[arg(long)]
    pub lua: bool,
    /// Shows device secrets and resume tokens too
    #[arg(long)]
    pub secrets: bool,
    /// Instead: each frame of a client, whole, to be said again, and each SEND_ACK; logins without
    /// their bytes unless --secrets is given
    #[arg(long, conflicts_with_all = ["json", "quiet", "life", "id"])]
    pub extract: bool,
    /// The life of one message instead: CHANNEL:ID, such as 7-9:12
    #[arg(long, value_name = "MESSAGE", value_parser = message, conflicts_with = "quiet")]
    pub life: Option<(ChannelId, MessageId)>,
    /// With --life: draws it into this file too
    #[arg(long, value_name = "FILE", requires = "life")]
    pub svg: Option<PathBuf>,
}

impl Arguments {
    /// What is to be listened to, if anything is.
    pub fn live(&self) -> Option<Wanted> {
        let interface = self.interface.clone()?;
        Some(Wanted { interface, port: self.port, lasts: self.seconds })
    }

    /// What is wanted.
    pub fn filter(&self) -> Filter {
        let (channel, id) = (self.channel, self.id);
        let uin = self.uin.map(Uin);
        Filter::new(filter::Wanted { uin, channel, id, kinds: self.kind.clone() })
    }

    /// The only connection that is wanted.
    pub fn connection(&self) -> Option<ConnectionId> {
        self.connection.map(ConnectionId)
    }

    /// Whether all events must be there before one is shown: a send's message id comes with its
    /// ack.
    pub fn needs_all(&self) -> bool {
        self.life.is_some() || (self.id.is_some() && self.interface.is_none())
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map_err(|_| format!("{text} is no number of seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|wrong| wrong.to_string())
}

fn message(text: &str) -> Result<(ChannelId, MessageId), String> {
    let (channel, id) = text.rsplit_once(':').ok_or("write CHANNEL:ID, such as 7-9:12")?;
    let channel = filter::channel(channel).map_err(|wrong| wrong.to_string())?;
    let id = id.parse().map_err(|_| format!("{id} is no message id"))?;
    Ok((channel, MessageId(id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
        assert_eq!(message("g4:9").map(|(_, id)| id), Ok(MessageId(9)));
        assert!(message("4").is_err() && message("7-9:x").is_err());
    }
}
