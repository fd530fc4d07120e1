//! `#[serde(with = "service_kit::config::size")]`: a number of bytes as text, such as `"64KiB"`,
//! `"1GiB"` or `"1500"`. Works for `u64`, `usize`, `u32`. Not bytesize, which accepts `64kb` and
//! rounds what it writes (decision 30).

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serializer};

const UNITS: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// Reads a size: a whole number with the unit `B`, `KiB`, `MiB`, `GiB` or `TiB`, or without a unit.
///
/// # Errors
/// A sentence that says what is accepted.
pub fn parse(text: &str) -> Result<u64, String> {
    let refuse = || format!("{text:?} is not a size; write it like \"64KiB\" or \"1GiB\"");
    let trimmed = text.trim();
    let digits = trimmed
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(trimmed.len());
    let number: u64 = trimmed[..digits].parse().map_err(|_error| refuse())?;
    let unit = trimmed[digits..].trim();
    let length = match unit {
        "" => 1,
        unit => {
            UNITS
                .iter()
                .find(|(name, _)| *name == unit)
                .ok_or_else(refuse)?
                .1
        }
    };
    number.checked_mul(length).ok_or_else(refuse)
}

/// The size as [`parse`] reads it, with the largest unit that divides it.
pub fn format(bytes: u64) -> String {
    let (name, length) = UNITS
        .iter()
        .find(|(_, length)| bytes >= *length && bytes.is_multiple_of(*length))
        .unwrap_or(&("B", 1));
    format!("{}{name}", bytes / length)
}

/// For serde.
///
/// # Errors
/// As the deserializer's; a text that is not a size, or is too large for the field, is quoted.
pub fn deserialize<'de, D, N>(deserializer: D) -> Result<N, D::Error>
where
    D: Deserializer<'de>,
    N: TryFrom<u64>,
{
    let text = String::deserialize(deserializer)?;
    let bytes = parse(&text).map_err(D::Error::custom)?;
    N::try_from(bytes).map_err(|_too_large| D::Error::custom(format!("{text:?} is too large")))
}

/// For serde.
///
/// # Errors
/// As the serializer's.
pub fn serialize<S, N>(bytes: &N, serializer: S) -> Result<S::Ok, S::Error>
where
    S: Serializer,
    N: TryInto<u64> + Copy,
{
    let bytes = (*bytes)
        .try_into()
        .map_err(|_negative| serde::ser::Error::custom("a size cannot be negative"))?;
    serializer.serialize_str(&format(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_and_print() {
        for (text, bytes) in [
            ("64KiB", 65_536),
            ("1GiB", 1 << 30),
            ("1500B", 1500),
            ("0B", 0),
        ] {
            assert_eq!(parse(text), Ok(bytes));
            assert_eq!(format(bytes), text);
        }
        assert_eq!(parse("1500"), Ok(1500));
        assert_eq!(parse("2 MiB"), Ok(2 << 20));
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "KiB", "-1", "64kb", "1.5MiB", "99999999999TiB", "1é"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
