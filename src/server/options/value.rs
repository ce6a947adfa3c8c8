//! What the text of an option may stand for.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A type that an option's text is read into.
pub(super) trait OptionValue: Sized {
    /// Reads it; the error says what is wrong with the text, for people.
    fn parse(text: &str, limits: Option<&RangeInclusive<u64>>) -> Result<Self, String>;
}

macro_rules! numbers {
    ($($type:ty)*) => {$(
        impl OptionValue for $type {
            fn parse(text: &str, limits: Option<&RangeInclusive<u64>>) -> Result<Self, String> {
                let number = number(text)?;
                let limits = limits.expect("every number of the table has limits");
                if number < *limits.start() {
                    return Err(format!("the least is {}", limits.start()));
                }
                Self::try_from(number)
                    .ok()
                    .filter(|_| number <= *limits.end())
                    .ok_or_else(|| format!("the most is {}", limits.end()))
            }
        }
    )*};
}

numbers!(u16 u32 u64 usize);

/// A whole number, with `_` between digits allowed as in TOML.
fn number(text: &str) -> Result<u64, String> {
    let digits = text.replace('_', "");
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("it must be a whole number".to_owned());
    }
    digits.parse().map_err(|_| format!("the most is {}", u64::MAX))
}

impl OptionValue for PathBuf {
    fn parse(text: &str, _: Option<&RangeInclusive<u64>>) -> Result<Self, String> {
        match text {
            "" => Err("it must name a folder".to_owned()),
            path => Ok(Self::from(path)),
        }
    }
}

impl OptionValue for SocketAddr {
    fn parse(text: &str, _: Option<&RangeInclusive<u64>>) -> Result<Self, String> {
        text.parse().map_err(|_| {
            "it must be an IP address and a port, like 127.0.0.1:5190 or [::1]:5190".to_owned()
        })
    }
}

/// A time in days, or none.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Days(f64);

/// Longest time in days: a century, which milliseconds in 64 bits count with ease.
const DAYS_MAX: f64 = 36_500.0;

impl Days {
    /// The time; `None` if there is no end to it.
    pub fn duration(self) -> Option<Duration> {
        (self.0 > 0.0).then(|| Duration::from_secs(24 * 60 * 60).mul_f64(self.0))
    }
}

impl OptionValue for Days {
    fn parse(text: &str, _: Option<&RangeInclusive<u64>>) -> Result<Self, String> {
        let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        match text.parse::<f64>() {
            Ok(days) if is_decimal && days <= DAYS_MAX => Ok(Self(days)),
            Ok(_) if is_decimal => Err(format!("the most is {DAYS_MAX}")),
            _ => Err("it must be a number of days, like 7 or 0.5".to_owned()),
        }
    }
}

/// A file, or none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OptionalPath(pub Option<PathBuf>);

impl OptionalPath {
    /// The file, if there is one.
    pub fn path(&self) -> Option<&Path> {
        self.0.as_deref()
    }
}

impl OptionValue for OptionalPath {
    fn parse(text: &str, _: Option<&RangeInclusive<u64>>) -> Result<Self, String> {
        Ok(Self((!text.is_empty()).then(|| PathBuf::from(text))))
    }
}

/// Any text, possibly none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Text(pub String);

impl Text {
    /// The text, if there is one.
    pub fn some(&self) -> Option<&str> {
        Some(self.0.as_str()).filter(|text| !text.is_empty())
    }
}

impl OptionValue for Text {
    fn parse(text: &str, _: Option<&RangeInclusive<u64>>) -> Result<Self, String> {
        Ok(Self(text.to_owned()))
    }
}

/// The address that profiles name, or none: then it follows from where the server listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Advertise(Option<String>);

impl OptionValue for Advertise {
    fn parse(text: &str, _: Option<&RangeInclusive<u64>>) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty());
        match port.and_then(|(_, port)| port.parse::<u16>().ok()) {
            Some(1..) => Ok(Self(Some(text.to_owned()))),
            _ => Err("it must be a name or address and a port, like tern.example:5190".to_owned()),
        }
    }
}

impl Advertise {
    /// What a profile says as the server's address; `None` if the port is not known before the
    /// server has taken one.
    pub fn address(&self, listen: SocketAddr) -> Option<String> {
        match &self.0 {
            Some(address) => Some(address.clone()),
            None if listen.port() == 0 => None,
            None if listen.ip().is_unspecified() => {
                let loopback = match listen {
                    SocketAddr::V4(_) => "127.0.0.1",
                    SocketAddr::V6(_) => "[::1]",
                };
                Some(format!("{loopback}:{}", listen.port()))
            }
            None => Some(listen.to_string()),
        }
    }
}

/// Names and addresses, separated by commas.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Names(pub Vec<String>);

impl OptionValue for Names {
    fn parse(text: &str, _: Option<&RangeInclusive<u64>>) -> Result<Self, String> {
        let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
        match names.as_slice() {
            [one] if one.is_empty() => Ok(Self(Vec::new())),
            names if names.iter().any(String::is_empty) => {
                Err("there is nothing between two commas".to_owned())
            }
            _ => Ok(Self(names)),
        }
    }
}

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident $word:literal)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $name { $($(#[$variant_doc])* $variant),* }

        impl OptionValue for $name {
            fn parse(text: &str, _: Option<&RangeInclusive<u64>>) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)*
                    _ => Err(format!("it must be one of: {}", [$($word),*].join(", "))),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $word),* })
            }
        }
    )*};
}

words! {
    /// What an ack waits for.
    Durability {
        /// The disk: survives a power cut.
        Disk "disk"
        /// The kernel: survives the end of the process, not a power cut.
        Process "process"
    }
    /// What happens when there is no more room for messages.
    WhenFull {
        /// Sends are refused until there is room.
        Refuse "refuse"
        /// The oldest messages go before their time.
        Evict "evict"
    }
    /// What a first token of the operator's own system adds.
    TokenAdds {
        /// Nothing.
        Nothing "nothing"
        /// Devices of users that are there.
        Devices "devices"
        /// Users, with their devices.
        Users "users"
    }
    /// Whether to do it.
    Switch {
        /// Yes.
        On "on"
        /// No.
        Off "off"
    }
    /// How single messages may travel.
    Datagrams {
        /// By datagram, and by two on a path that loses packets.
        On "on"
        /// By one datagram, whatever is lost.
        Single "single"
        /// By stream, and by datagram what is not acknowledged in time.
        Repeat "repeat"
        /// By stream, like all else.
        Off "off"
    }
    /// A set of other defaults.
    Preset {
        /// The defaults of the table.
        None "none"
        /// One message a second, as the founding articles have it.
        Strict "strict"
    }
}

impl Preset {
    /// The defaults it replaces.
    pub(super) fn defaults(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::None => &[],
            Self::Strict => &[
                ("sends-per-second", "1"),
                ("sends-burst", "1"),
                ("user-sends-per-second", "1"),
                ("user-sends-burst", "1"),
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_name_an_address_that_can_be_reached() {
        let said = |advertise: &str, listen: &str| {
            let listen = listen.parse().expect("an address");
            Advertise::parse(advertise, None).expect("an address").address(listen)
        };
        assert_eq!(said("", "127.0.0.1:5190").as_deref(), Some("127.0.0.1:5190"));
        assert_eq!(said("", "0.0.0.0:5190").as_deref(), Some("127.0.0.1:5190"));
        assert_eq!(said("", "[::]:7").as_deref(), Some("[::1]:7"));
        assert_eq!(said("", "127.0.0.1:0"), None);
        assert_eq!(said("tern.example:443", "0.0.0.0:0").as_deref(), Some("tern.example:443"));
        for wrong in ["tern.example", ":5190", "tern.example:0", "tern.example:x"] {
            assert!(Advertise::parse(wrong, None).is_err(), "{wrong}");
        }
    }

    #[test]
    fn days_are_decimal_and_none_is_for_ever() {
        let seconds =
            |text| Days::parse(text, None).map(|days| days.duration().map(|it| it.as_secs()));
        assert_eq!(seconds("7"), Ok(Some(604_800)));
        assert_eq!(seconds("0.25"), Ok(Some(21_600)));
        assert_eq!(seconds("0"), Ok(None));
        for wrong in ["", "-1", "1e9", "inf", "NaN", "36501", "a week", "1.2.3"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lists_of_names() {
        let names = |text| Names::parse(text, None).map(|names| names.0);
        assert_eq!(names(""), Ok(vec![]));
        assert_eq!(names("a, 10.0.0.1"), Ok(vec!["a".to_owned(), "10.0.0.1".to_owned()]));
        assert!(names("a,,b").is_err());
    }
}
