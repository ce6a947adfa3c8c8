//! Latencies by name, and the text that keeps them: an HdrHistogram interval log, which other tools
//! read too. One line a histogram, its name as the tag.

use std::time::Duration;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{
    IntervalLogHistogram, IntervalLogIterator, IntervalLogWriterBuilder, LogEntry, Tag,
};

use super::latency::Latency;
use crate::error::BenchError;

/// What the log's column of maxima is divided by: it is in ms, the histograms in ns.
const NS_PER_MS: f64 = 1e6;

/// Histograms by name.
#[derive(Clone, Default, Debug)]
pub struct Curves(Vec<(String, Latency)>);

impl Curves {
    /// Adds one. Its name becomes a tag, which has no blanks and no commas.
    pub fn add(&mut self, name: &str, latency: Latency) {
        self.0.push((name.replace([' ', ',', '\n', '\r'], "-"), latency));
    }

    /// Adds all of another's, those of one name together.
    pub fn merge(&mut self, other: &Self) {
        for (name, latency) in &other.0 {
            match self.0.iter_mut().find(|(own, _)| own == name) {
                Some((_, own)) => own.merge(latency),
                None => self.0.push((name.clone(), latency.clone())),
            }
        }
    }

    /// The one of this name; an empty one if there is none.
    pub fn get(&self, name: &str) -> Latency {
        let tag = name.replace(' ', "-");
        let found = self.0.iter().find(|(own, _)| *own == tag);
        found.map(|(_, latency)| latency.clone()).unwrap_or_default()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Latency)> {
        self.0.iter().map(|(name, latency)| (name.as_str(), latency))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As a log. Its lines have no times: each histogram is of a whole run.
    ///
    /// # Errors
    /// When a name can't be a tag.
    pub fn to_log(&self) -> Result<String, BenchError> {
        let failed = |what: String| BenchError::Load(format!("the histograms' log: {what}"));
        let mut text = Vec::new();
        let mut serializer = V2DeflateSerializer::new();
        let mut log = IntervalLogWriterBuilder::new()
            .add_comment("latencies in ns")
            .with_max_value_divisor(NS_PER_MS)
            .begin_log_with(&mut text, &mut serializer)
            .map_err(|error| failed(error.to_string()))?;
        for (name, latency) in &self.0 {
            let tag = Tag::new(name).ok_or_else(|| failed(format!("{name} is no tag")))?;
            log.write_histogram(latency.histogram(), Duration::ZERO, Duration::ZERO, Some(tag))
                .map_err(|error| failed(format!("{error:?}")))?;
        }
        String::from_utf8(text).map_err(|error| failed(error.to_string()))
    }

    /// From a log.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(log: &str) -> Result<Self, BenchError> {
        let mut curves = Self::default();
        let mut deserializer = Deserializer::new();
        for entry in IntervalLogIterator::new(log.as_bytes()) {
            let entry = entry.map_err(|error| wrong(format!("{error:?}")))?;
            if let LogEntry::Interval(line) = entry {
                let latency = Latency::from(decode(&mut deserializer, &line)?);
                let name = line.tag().map_or("", |tag| tag.as_str());
                curves.0.push((name.to_owned(), latency));
            }
        }
        Ok(curves)
    }
}

fn decode(
    deserializer: &mut Deserializer,
    line: &IntervalLogHistogram<'_>,
) -> Result<Histogram<u64>, BenchError> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(line.encoded_histogram());
    let bytes = bytes.map_err(|error| wrong(error.to_string()))?;
    deserializer.deserialize(&mut &bytes[..]).map_err(|error| wrong(error.to_string()))
}

fn wrong(what: String) -> BenchError {
    BenchError::Usage(format!("this is no log of histograms: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latency(ms: impl Iterator<Item = u64>) -> Latency {
        let mut latency = Latency::default();
        ms.for_each(|ms| latency.record(Duration::from_millis(ms)));
        latency
    }

    #[test]
    fn a_log_keeps_every_count() {
        let mut curves = Curves::default();
        curves.add("send to ack", latency(1..=1_000));
        curves.add("empty", latency(0..0));
        let log = curves.to_log().expect("the names are tags");
        let read = Curves::parse(&log).expect("it was just written");
        let names: Vec<&str> = read.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["send-to-ack", "empty"]);
        assert_eq!(read.get("send to ack").histogram(), curves.get("send to ack").histogram());
        assert!(Curves::parse("no log at all").is_err());
    }

    #[test]
    fn merging_adds_what_has_one_name() {
        let (mut all, mut other) = (Curves::default(), Curves::default());
        all.add("a", latency(1..=3));
        other.add("a", latency(4..=5));
        other.add("b", latency(1..=1));
        all.merge(&other);
        assert_eq!((all.get("a").count(), all.get("b").count()), (5, 1));
        assert_eq!(all.iter().count(), 2);
    }
}
