//! The server's own figures, as `tern status --json` gives them: looked up by name, so that any
//! version can be asked.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The server's figures at one moment.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// `ready` once it serves.
    pub phase: String,
    /// Where it listens.
    pub listen: String,
    /// SHA-256 of its certificate in hex.
    pub pin: String,
    workers: Table,
    shards: Table,
}

#[derive(Clone, Debug, Deserialize)]
struct Table {
    rows: Vec<Row>,
}

#[derive(Clone, Debug, Deserialize)]
struct Row {
    name: String,
    unit: String,
    sort: String,
    values: Vec<u64>,
}

/// How much a count has grown.
#[derive(Clone, PartialEq, Debug)]
pub struct Growth {
    /// Its unit.
    pub unit: String,
    /// By how much.
    pub by: u64,
}

impl Status {
    /// By how much each count has grown since `before`, all workers and shards together.
    pub fn since(&self, before: &Self) -> BTreeMap<String, Growth> {
        let then = before.counts();
        let grown = self.counts().into_iter().map(|(name, now)| {
            let by = now.by.saturating_sub(then.get(&name).map_or(0, |then| then.by));
            (name, Growth { unit: now.unit, by })
        });
        grown.collect()
    }

    /// A figure by its name, all columns together: a level is the highest of them.
    pub fn figure(&self, name: &str) -> Option<u64> {
        let row = self.rows().find(|row| row.name == name)?;
        Some(match row.sort.as_str() {
            "level" => row.values.iter().copied().max().unwrap_or(0),
            _ => row.values.iter().sum(),
        })
    }

    fn counts(&self) -> BTreeMap<String, Growth> {
        let counts = self.rows().filter(|row| row.sort == "count").map(|row| {
            (row.name.clone(), Growth { unit: row.unit.clone(), by: row.values.iter().sum() })
        });
        counts.collect()
    }

    fn rows(&self) -> impl Iterator<Item = &Row> {
        self.workers.rows.iter().chain(&self.shards.rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(acks: [u64; 2], worst: u64) -> Status {
        let text = format!(
            r#"{{"phase":"ready","pid":1,"version":"0","uptime_ms":5,"listen":"[::1]:9","pin":"ab",
            "workers":{{"columns":["a","b"],"rows":[
                {{"name":"acks","unit":"messages","sort":"count","sentence":"s","values":{acks:?}}},
                {{"name":"worst","unit":"us","sort":"level","sentence":"s","values":[1,{worst}]}}
            ]}},"shards":{{"columns":[],"rows":[]}}}}"#
        );
        serde_json::from_str(&text).expect("a status")
    }

    #[test]
    fn counts_grow_and_levels_do_not_add_up() {
        let (before, after) = (status([1, 2], 7), status([11, 32], 9));
        let grown = after.since(&before);
        assert_eq!(grown["acks"], Growth { unit: "messages".to_owned(), by: 40 });
        assert!(!grown.contains_key("worst"));
        assert_eq!(after.figure("worst"), Some(9));
        assert_eq!(after.figure("acks"), Some(43));
        assert_eq!(after.figure("nothing"), None);
    }
}
