//! `#[serde(with = "service_kit::config::duration")]`: a [`Duration`] as text, such as `"30d"`,
//! `"7d"`, `"1h30m"` or `"200ms"`. Not humantime, which reads `5M` as five months (decision 30).

use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serializer};

/// Unit names and their length in milliseconds, longest first.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Reads a duration: one or more whole numbers, each with a unit `d`, `h`, `m`, `s` or `ms`.
///
/// # Errors
/// A sentence that says what is accepted.
pub fn parse(text: &str) -> Result<Duration, String> {
    let refuse =
        || format!("{text:?} is not a duration; write it like \"30d\", \"90s\" or \"200ms\"");
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(refuse());
    }
    let mut millis = 0_u64;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .ok_or_else(refuse)?;
        let number: u64 = rest[..digits].parse().map_err(|_error| refuse())?;
        rest = &rest[digits..];
        let letters = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (_, length) = UNITS
            .iter()
            .find(|(name, _)| *name == rest[..letters].trim())
            .ok_or_else(refuse)?;
        rest = &rest[letters..];
        millis = number
            .checked_mul(*length)
            .and_then(|part| millis.checked_add(part))
            .ok_or_else(refuse)?;
    }
    Ok(Duration::from_millis(millis))
}

/// The duration as [`parse`] reads it, in whole milliseconds.
pub fn format(duration: Duration) -> String {
    let mut millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (name, length) in UNITS {
        let number = millis / length;
        millis %= length;
        if number > 0 {
            text.push_str(&format!("{number}{name}"));
        }
    }
    text
}

/// For serde.
///
/// # Errors
/// As the deserializer's; a text that is not a duration is quoted.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// For serde.
///
/// # Errors
/// As the serializer's.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*duration))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print() {
        for (text, millis) in [
            ("30d", 2_592_000_000),
            ("1h30m", 5_400_000),
            ("200ms", 200),
            ("1m1s1ms", 61_001),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)));
            assert_eq!(format(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            "5",
            "s",
            "-1s",
            "1.5s",
            "1y",
            "99999999999999999999s",
            "999999999999999999d",
            "1sé",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
