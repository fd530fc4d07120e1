//! `#[serde(with = "service_kit::config::optional")]`: an `Option` for which an empty text means
//! `None`, so that every key can be in the defaults file.

use std::fmt::Display;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serializer};

/// For serde.
///
/// # Errors
/// As the deserializer's, or what `T` says about the text.
pub fn deserialize<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr,
    T::Err: Display,
{
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|error| D::Error::custom(format!("{text:?}: {error}")))
}

/// For serde.
///
/// # Errors
/// As the serializer's.
pub fn serialize<S, T>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error>
where
    S: Serializer,
    T: Display,
{
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_str(""),
    }
}
