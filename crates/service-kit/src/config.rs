//! Configuration in layers: the embedded, commented defaults, then a file, then the environment.
//!
//! The defaults list every key: a service has all its keys in `config.default.toml`, and any other key
//! is refused, with its name and where it was found. Each key has the type of its default. The
//! environment is an argument, so that tests never set it.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use toml::{Table, Value};

pub mod duration;
pub mod listen;
mod meant;
pub mod optional;
mod secret;
pub mod size;

pub use secret::Secret;

/// Why a configuration was refused. The text names the key and its source.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A layer is not TOML.
    #[error("{origin} is not valid TOML: {reason}")]
    Syntax {
        /// Which layer.
        origin: String,
        /// What is wrong, and where.
        reason: String,
    },
    /// A key that is not in the defaults.
    #[error(
        "{origin}: unknown key `{key}`; {}--print-config shows every key",
        did_you_mean(meant)
    )]
    UnknownKey {
        /// The dotted key.
        key: String,
        /// Which layer.
        origin: String,
        /// Known keys that may have been meant, as they are written in that layer.
        meant: Vec<String>,
    },
    /// A value whose type is not that of the default.
    #[error("{origin}: `{key}` must be {expected}, not {found}")]
    WrongType {
        /// The dotted key.
        key: String,
        /// Which layer.
        origin: String,
        /// The type it must have.
        expected: &'static str,
        /// What was found.
        found: String,
    },
    /// A value of the right type that the service cannot use.
    #[error("configuration: {reason}")]
    Invalid {
        /// What is wrong, with the key.
        reason: String,
    },
}

fn did_you_mean(keys: &[String]) -> String {
    match keys {
        [] => String::new(),
        keys => format!("did you mean {}? ", keys.join(" or ")),
    }
}

impl ConfigError {
    /// For checks that a service itself makes once, at start.
    pub fn invalid(key: &str, reason: impl std::fmt::Display) -> Self {
        Self::Invalid {
            reason: format!("`{key}` {reason}"),
        }
    }
}

/// Reads the layers into a `T`. With the prefix `HARK_`, the environment variable
/// `HARK_STORE__MAX_AGE` sets `store.max_age`. Lists are separated by commas. Variables without the
/// prefix are ignored.
///
/// # Errors
/// [`ConfigError`], which says what to change.
pub fn load<T: DeserializeOwned>(
    defaults_toml: &str,
    file: Option<&Path>,
    env_prefix: &str,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<T, ConfigError> {
    parse(load_table(defaults_toml, file, env_prefix, env)?)
}

/// The merged layers as a table, for a command that passes parts of it to several services.
///
/// # Errors
/// As [`load`].
pub fn load_table(
    defaults_toml: &str,
    file: Option<&Path>,
    env_prefix: &str,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<Table, ConfigError> {
    let mut merged = read_toml(defaults_toml, "the built-in defaults")?;
    if let Some(path) = file {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        let origin = path.display().to_string();
        let layer = read_toml(&text, &origin)?;
        overlay(&mut merged, layer, "", &origin)
            .map_err(|error| with_what_was_meant(error, &merged, |key| format!("`{key}`")))?;
    }
    for (name, text) in env {
        if let Some(rest) = name.strip_prefix(env_prefix) {
            let variable = |key: &str| {
                let steps = key.to_ascii_uppercase().replace('.', "__");
                format!("{env_prefix}{steps}")
            };
            set_from_text(&mut merged, &rest.to_ascii_lowercase(), &text, &name)
                .map_err(|error| with_what_was_meant(error, &merged, variable))?;
        }
    }
    Ok(merged)
}

/// Adds the keys that an unknown one may stand for, as they are written in its layer.
fn with_what_was_meant(
    mut error: ConfigError,
    known: &Table,
    written: impl Fn(&str) -> String,
) -> ConfigError {
    if let ConfigError::UnknownKey { key, meant, .. } = &mut error {
        let keys = meant::keys(key, known);
        *meant = keys.iter().map(|key| written(key)).collect();
    }
    error
}

fn joined(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// Turns merged layers into a `T`.
///
/// # Errors
/// [`ConfigError::Invalid`], with the key.
pub fn parse<T: DeserializeOwned>(merged: Table) -> Result<T, ConfigError> {
    T::deserialize(Value::Table(merged)).map_err(|error| ConfigError::Invalid {
        // toml puts "in `key`" on a separate line.
        reason: error.to_string().trim().replace('\n', " "),
    })
}

/// The configuration as TOML, for `--print-config`. A [`Secret`] is shown as `***`.
///
/// # Errors
/// [`ConfigError::Invalid`] when `T` contains something that TOML cannot express.
pub fn render<T: Serialize>(config: &T) -> Result<String, ConfigError> {
    toml::to_string_pretty(config).map_err(|error| ConfigError::Invalid {
        reason: error.to_string(),
    })
}

fn read_toml(text: &str, origin: &str) -> Result<Table, ConfigError> {
    text.parse()
        .map_err(|error: toml::de::Error| ConfigError::Syntax {
            origin: origin.to_owned(),
            reason: error.to_string().trim().to_owned(),
        })
}

fn overlay(base: &mut Table, layer: Table, path: &str, origin: &str) -> Result<(), ConfigError> {
    for (name, value) in layer {
        let key = joined(path, &name);
        let Some(slot) = base.get_mut(&name) else {
            return Err(ConfigError::UnknownKey {
                key,
                origin: origin.to_owned(),
                meant: Vec::new(),
            });
        };
        match (slot, value) {
            (Value::Table(below), Value::Table(layer)) => overlay(below, layer, &key, origin)?,
            // A whole number is accepted where a fraction is expected.
            (Value::Float(slot), Value::Integer(value)) => *slot = value as f64,
            (slot, value) if slot.same_type(&value) => *slot = value,
            (slot, value) => {
                return Err(ConfigError::WrongType {
                    key,
                    origin: origin.to_owned(),
                    expected: type_name(slot),
                    found: value.to_string(),
                });
            }
        }
    }
    Ok(())
}

/// The steps of `path` are separated by two underscores.
fn set_from_text(
    base: &mut Table,
    path: &str,
    text: &str,
    origin: &str,
) -> Result<(), ConfigError> {
    let key = path.replace("__", ".");
    let unknown = || ConfigError::UnknownKey {
        key: key.clone(),
        origin: format!("environment variable {origin}"),
        meant: Vec::new(),
    };
    let (tables, name) = path.rsplit_once("__").unwrap_or(("", path));
    let mut table = base;
    for step in tables.split("__").filter(|step| !step.is_empty()) {
        table = table
            .get_mut(step)
            .and_then(Value::as_table_mut)
            .ok_or_else(unknown)?;
    }
    let slot = table.get_mut(name).ok_or_else(unknown)?;
    let value = match slot {
        Value::String(_) => Some(Value::String(text.to_owned())),
        Value::Integer(_) => text.parse().ok().map(Value::Integer),
        Value::Float(_) => text.parse().ok().map(Value::Float),
        Value::Boolean(_) => text.parse().ok().map(Value::Boolean),
        Value::Array(_) => Some(Value::Array(
            text.split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(|item| Value::String(item.to_owned()))
                .collect(),
        )),
        Value::Table(_) | Value::Datetime(_) => None,
    };
    match value {
        Some(value) => *slot = value,
        None => {
            return Err(ConfigError::WrongType {
                key,
                origin: format!("environment variable {origin}"),
                expected: type_name(slot),
                found: format!("{text:?}"),
            });
        }
    }
    Ok(())
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string in quotes",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests;
