//! The four layers that values come from, and which of them wins.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::value::OptionValue;
use super::{OptionError, Preset, Row, TABLE};

/// The file that is read from the data folder if no other is named.
const FILE_NAME: &str = "tern.toml";

/// The option that names the file; not in the table, since the file can't set it.
const CONFIG: &str = "config";

/// Variables that start like an option's and are something else.
const OTHER_VARIABLES: &[&str] = &["TERN_LOG", "TERN_CONFIG"];

/// Where a value came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// The table.
    Default,
    /// A preset's table.
    Preset(Preset),
    /// A TOML file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the default"),
            Self::Preset(name) => write!(f, "the preset {name}"),
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Environment(name) => write!(f, "the environment variable {name}"),
            Self::Flag(name) => write!(f, "the flag --{name}"),
        }
    }
}

/// What the command line said: names of options with their text.
#[derive(Clone, Default, Debug)]
pub struct Flags {
    values: BTreeMap<&'static str, String>,
    config: Option<PathBuf>,
}

impl Flags {
    /// Values by the names of options.
    pub fn new(values: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        Self { values: values.into_iter().collect(), config: None }
    }

    /// The file to read, if it was named.
    #[must_use]
    pub fn with_config(mut self, config: Option<PathBuf>) -> Self {
        self.config = config;
        self
    }
}

impl clap::Args for Flags {
    fn augment_args(command: clap::Command) -> clap::Command {
        let config = clap::Arg::new(CONFIG)
            .long(CONFIG)
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("A TOML file that sets options by their names [default: DIR/tern.toml if there]");
        TABLE.iter().map(argument).fold(command.arg(config), clap::Command::arg)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

fn argument(row: &'static Row) -> clap::Arg {
    let default = match row.default {
        "" => String::new(),
        default => format!(" [default: {default}]"),
    };
    clap::Arg::new(row.name).long(row.name).value_name(row.unit).help(format!(
        "{}{default} [env: {}]",
        row.sentence,
        row.variable()
    ))
}

impl clap::FromArgMatches for Flags {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        let given = TABLE.iter().filter_map(|row| {
            matches.get_one::<String>(row.name).map(|text| (row.name, text.clone()))
        });
        self.values.extend(given);
        self.config = matches.get_one::<PathBuf>(CONFIG).cloned().or(self.config.take());
        Ok(())
    }
}

/// The variables of the environment that start with `TERN_`.
#[derive(Clone, Default, Debug)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// That of this process.
    ///
    /// # Errors
    /// When a value is not UTF-8.
    pub fn of_process() -> Result<Self, OptionError> {
        let ours = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok().filter(|name| name.starts_with("TERN_"))?;
            Some((name, value))
        });
        ours.map(|(name, value)| match value.into_string() {
            Ok(value) => Ok((name, value)),
            Err(_) => Err(OptionError::NotText { variable: name }),
        })
        .collect::<Result<_, _>>()
        .map(Self)
    }

    /// These variables.
    pub fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(variables.into_iter().collect())
    }

    /// Variables that look like an option's and are none: most likely misspelt.
    fn strangers(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str).filter(|name| {
            !OTHER_VARIABLES.contains(name) && TABLE.iter().all(|row| row.variable() != *name)
        })
    }
}

/// The text of every option after all layers, and where it came from.
#[derive(Clone, Debug)]
pub struct Values(BTreeMap<&'static str, (String, Source)>);

impl Values {
    pub(super) fn gather(flags: &Flags, environment: &Environment) -> Result<Self, OptionError> {
        for name in environment.strangers() {
            tracing::warn!(name, "this environment variable is no option and is not used");
        }
        let mut over = BTreeMap::new();
        over.extend(TABLE.iter().filter_map(|row| from_environment(row, environment)));
        over.extend(
            flags.values.iter().map(|(name, text)| (*name, (text.clone(), Source::Flag(name)))),
        );

        let mut values = Self(
            TABLE.iter().map(|row| (row.name, (row.default.to_owned(), Source::Default))).collect(),
        );
        let data = over.get("data").map_or(values.text("data"), |(text, _)| text);
        let mut set = read_file(flags, environment, Path::new(data))?;
        set.extend(over);

        values.0.extend(set.clone());
        let preset: Preset = values.read("preset")?;
        for (name, text) in preset.defaults() {
            if !set.contains_key(name) {
                values.0.insert(name, ((*text).to_owned(), Source::Preset(preset)));
            }
        }
        Ok(values)
    }

    /// Reads an option of the table.
    pub(super) fn read<T: OptionValue>(&self, name: &'static str) -> Result<T, OptionError> {
        let row = TABLE.iter().find(|row| row.name == name).expect("it is in the table");
        let (value, source) = &self.0[name];
        T::parse(value, row.limits.as_ref()).map_err(|reason| OptionError::Invalid {
            option: name,
            value: value.clone(),
            reason,
            source: source.clone(),
        })
    }

    /// The text of an option of the table.
    pub fn text(&self, name: &str) -> &str {
        &self.0[name].0
    }

    /// The options that do not have the table's default, with their text and source.
    pub fn changed(&self) -> impl Iterator<Item = (&'static str, &str, &Source)> {
        self.0
            .iter()
            .filter(|(_, (_, source))| *source != Source::Default)
            .map(|(name, (text, source))| (*name, text.as_str(), source))
    }
}

type Layer = BTreeMap<&'static str, (String, Source)>;

fn from_environment(
    row: &'static Row,
    environment: &Environment,
) -> Option<(&'static str, (String, Source))> {
    let variable = row.variable();
    let text = environment.0.get(&variable)?;
    Some((row.name, (text.clone(), Source::Environment(variable))))
}

/// The layer of the file: the named one must be there, the one in the data folder may be.
fn read_file(flags: &Flags, environment: &Environment, data: &Path) -> Result<Layer, OptionError> {
    let named = flags.config.clone().or(environment.0.get("TERN_CONFIG").map(PathBuf::from));
    let path = named.clone().unwrap_or_else(|| data.join(FILE_NAME));
    let file = |reason: String| OptionError::File { path: path.clone(), reason };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => {
            return Ok(Layer::new());
        }
        Err(error) => return Err(file(error.to_string())),
    };
    let table: toml::Table = toml::from_str(&text).map_err(|error| file(error.to_string()))?;
    let layer: Layer = table
        .into_iter()
        .map(|(key, value)| from_file(&path, key, value))
        .collect::<Result<_, _>>()?;
    match named {
        None if layer.contains_key("data") => Err(OptionError::DataInItself { path }),
        _ => Ok(layer),
    }
}

fn from_file(
    path: &Path,
    key: String,
    value: toml::Value,
) -> Result<(&'static str, (String, Source)), OptionError> {
    let source = Source::File(path.to_owned());
    let Some(row) = TABLE.iter().find(|row| row.name == key) else {
        return Err(OptionError::UnknownKey { path: path.to_owned(), key });
    };
    let text = match value {
        toml::Value::String(text) => text,
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Float(_)
        | toml::Value::Boolean(_)
        | toml::Value::Datetime(_)
        | toml::Value::Array(_)
        | toml::Value::Table(_) => {
            let reason = "it must be a number or a text in quotes".to_owned();
            return Err(OptionError::Invalid {
                option: row.name,
                value: value.to_string(),
                reason,
                source,
            });
        }
    };
    Ok((row.name, (text, source)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        Environment::new(variables.iter().map(|(name, text)| ((*name).into(), (*text).into())))
    }

    fn flags(values: &[(&'static str, &str)]) -> Flags {
        Flags::new(values.iter().map(|(name, text)| (*name, (*text).to_owned())))
    }

    #[test]
    fn flag_before_environment_before_file_before_default() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().to_str().expect("text");
        std::fs::write(
            folder.path().join(FILE_NAME),
            "workers = 1\nspin-us = \"1\"\ncome-back-ms = 1\n",
        )
        .expect("written");
        let flags = flags(&[("data", data), ("workers", "3")]);
        let environment = environment(&[("TERN_WORKERS", "2"), ("TERN_SPIN_US", "2")]);
        let (options, values) = Options::load(&flags, &environment).expect("valid");
        let read = (options.workers, options.spin_us, options.come_back_ms, options.sends_burst);
        assert_eq!(read, (3, 2, 1, 500));
        let changed: Vec<String> = values
            .changed()
            .map(|(name, text, source)| format!("{name}={text} {source}"))
            .collect();
        let file = folder.path().join(FILE_NAME);
        assert_eq!(
            changed,
            [
                format!("come-back-ms=1 the file {}", file.display()),
                format!("data={data} the flag --data"),
                "spin-us=2 the environment variable TERN_SPIN_US".to_owned(),
                "workers=3 the flag --workers".to_owned(),
            ]
        );
    }

    #[test]
    fn a_preset_replaces_defaults_only() {
        let strict = environment(&[("TERN_PRESET", "strict")]);
        let (options, _) = Options::load(&Flags::default(), &strict).expect("valid");
        assert_eq!((options.sends_per_second, options.sends_burst), (1, 1));
        assert_eq!((options.user_sends_per_second, options.user_sends_burst), (1, 1));
        let (options, _) = Options::load(&flags(&[("sends-burst", "9")]), &strict).expect("valid");
        assert_eq!((options.sends_per_second, options.sends_burst), (1, 9));
    }

    #[test]
    fn errors_name_option_value_limit_and_source() {
        let error = |given: &[(&'static str, &str)]| {
            Options::load(&flags(given), &Environment::default()).expect_err("invalid").to_string()
        };
        assert_eq!(
            error(&[("content-bytes-max", "70000")]),
            "option content-bytes-max: \"70000\" from the flag --content-bytes-max is not \
             accepted: the most is 60000"
        );
        assert!(error(&[("workers", "65537")]).ends_with("the most is 256"), "beyond its type");
        assert!(error(&[("login-ms-max", "-1")]).ends_with("a whole number"));
        assert!(error(&[("durability", "ram")]).ends_with("one of: disk, process"));
        assert!(error(&[("listen", "localhost")]).contains("like 127.0.0.1:5190"));
    }

    #[test]
    fn a_file_that_is_wrong_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("other.toml");
        let load = |text: &str| {
            std::fs::write(&path, text).expect("written");
            let flags = Flags::default().with_config(Some(path.clone()));
            Options::load(&flags, &Environment::default()).map_err(|error| error.to_string())
        };
        assert!(load("data = \"/x\"").is_ok(), "a file named by hand may");
        assert!(load("wrokers = 1").expect_err("unknown").contains("\"wrokers\""));
        assert!(load("workers = true").expect_err("no number").contains("other.toml"));
        assert!(load("workers =").expect_err("no TOML").contains("other.toml"));
        std::fs::remove_file(&path).expect("removed");
        let flags = Flags::default().with_config(Some(path.clone()));
        let error = Options::load(&flags, &Environment::default()).expect_err("it is not there");
        assert!(matches!(error, OptionError::File { .. }), "{error}");
    }

    #[test]
    fn the_file_in_the_data_folder_cannot_move_it() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join(FILE_NAME), "data = \"/x\"").expect("written");
        let data = folder.path().to_str().expect("text");
        let error = Options::load(&flags(&[("data", data)]), &Environment::default());
        assert!(matches!(error, Err(OptionError::DataInItself { .. })), "{error:?}");
    }

    #[test]
    fn misspelt_variables_are_found() {
        let environment = environment(&[("TERN_WROKERS", "1"), ("TERN_LOG", "info")]);
        assert_eq!(environment.strangers().collect::<Vec<_>>(), ["TERN_WROKERS"]);
    }
}
