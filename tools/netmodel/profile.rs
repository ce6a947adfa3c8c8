//! Whole links with a name: both directions, the NAT between, and what happens on them in time.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::conditions::Conditions;
use crate::nat::NatRules;
use crate::timeline::Step;

/// The links that come with the program.
const BUILT_IN: &str = include_str!("profiles.toml");

/// A link, both ways.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// A sentence for people.
    #[serde(default)]
    pub about: String,
    /// From the client to the server.
    #[serde(default)]
    pub up: Conditions,
    /// From the server to the client.
    #[serde(default)]
    pub down: Conditions,
    /// What stands between.
    #[serde(default)]
    pub nat: NatRules,
    /// What happens in time, in its order.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// After this time the steps begin again, in ms; `None`: they happen once.
    #[serde(default)]
    pub repeat_ms: Option<u64>,
}

impl Profile {
    /// The same both ways, without a NAT that forgets.
    pub fn symmetric(conditions: Conditions) -> Self {
        Self { up: conditions.clone(), down: conditions, ..Self::default() }
    }

    /// The built-in profiles by name.
    ///
    /// # Panics
    /// Never: the text is part of the program and a test reads it.
    pub fn built_in() -> BTreeMap<String, Self> {
        Self::parse(BUILT_IN).expect("the built-in profiles are read by a test")
    }

    /// Reads profiles: a TOML table of each, under its name. A step may be like a profile of the
    /// same text or a built-in one.
    ///
    /// # Errors
    /// When the text is no such table, or a profile has a value that makes no sense; says which.
    pub fn parse(text: &str) -> Result<BTreeMap<String, Self>, String> {
        let mut all: BTreeMap<String, Self> =
            toml::from_str(text).map_err(|error| error.to_string())?;
        let known = all.clone();
        for (name, profile) in &mut all {
            let wrong = |wrong: String| format!("profile {name}: {wrong}");
            profile.resolve(&known).map_err(wrong)?;
            profile.check().map_err(wrong)?;
        }
        Ok(all)
    }

    /// Other profiles' conditions in place of their names.
    fn resolve(&mut self, known: &BTreeMap<String, Self>) -> Result<(), String> {
        for step in &mut self.steps {
            let Some(name) = step.like.take() else { continue };
            let built_in =
                || toml::from_str::<BTreeMap<String, Self>>(BUILT_IN).ok()?.remove(&name);
            let like = known.get(&name).cloned().or_else(built_in);
            let like = like.ok_or_else(|| format!("a step is like {name}, which is no profile"))?;
            step.up.get_or_insert(like.up);
            step.down.get_or_insert(like.down);
            step.nat.get_or_insert(like.nat);
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        self.up.check().map_err(|wrong| format!("up.{wrong}"))?;
        self.down.check().map_err(|wrong| format!("down.{wrong}"))?;
        self.nat.check()?;
        crate::timeline::check(&self.steps, self.repeat_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_profiles_are_read_and_differ() {
        let all = Profile::built_in();
        let names: Vec<&str> = all.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "3g",
                "blackhole",
                "clear",
                "demo",
                "flight",
                "lte-train",
                "satellite",
                "wifi",
                "wifi-elevator"
            ]
        );
        assert!(all.values().all(|profile| !profile.about.is_empty()));
        assert!(all["lte-train"].nat.rebind_every_ms.is_some());
        let ride = &all["wifi-elevator"];
        assert!(ride.steps.iter().all(|step| step.like.is_none()), "names are resolved");
        assert!(ride.steps.iter().any(|step| step.rebind && step.up.is_some()));
    }

    #[test]
    fn a_profile_that_makes_no_sense_is_refused_by_name() {
        let wrong = Profile::parse("[x]\nup = { loss_percent = 101 }").unwrap_err();
        assert!(wrong.contains("profile x: up.loss_percent is 101"), "{wrong}");
        assert!(Profile::parse("[x]\nup = { lost = 1 }").unwrap_err().contains("lost"));
        assert!(Profile::parse("[x]\nnat = { idle_ms = 0 }").unwrap_err().contains("nat.idle_ms"));
    }
}
