use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One incarnation of a channel's log.
///
/// A log that may have lost its tail (a restored backup) continues in a new epoch, so that one
/// sequence number never means two messages. Later epochs compare greater. An epoch has 49 bits: its
/// creation time in eighths of a second since 1970 (36 bits, until the year 2242), then 13 random
/// bits, so that a backup that is restored twice gets two different epochs.
///
/// The text form has ten characters of lower-case base32hex (RFC 4648 §7) and sorts as the epochs
/// do. [`Epoch::ZERO`], the epoch of a channel without a log, is written `0`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(u64);

/// The text is not an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an epoch")]
pub struct NotAnEpoch;

const RANDOM_BITS: u32 = 13;
const BITS: u32 = 36 + RANDOM_BITS;
/// 49 bits, 5 in each character.
pub(crate) const TEXT_LENGTH: usize = 10;
const ALPHABET: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

impl Epoch {
    /// The epoch of a channel that has no log. It precedes every other epoch.
    pub const ZERO: Self = Self(0);

    /// The most bits that [`value`](Self::value) uses.
    pub const BITS: u32 = BITS;

    /// A new epoch, which is greater than `previous` whatever the clock says.
    ///
    /// `now` is in milliseconds since 1970.
    pub fn after(previous: Self, now: u64) -> Self {
        let time = (now / 125).max((previous.0 >> RANDOM_BITS) + 1) & ((1 << 36) - 1);
        let random: u64 = rand::random::<u64>() & ((1 << RANDOM_BITS) - 1);
        Self(time << RANDOM_BITS | random)
    }

    /// The epoch as a number, for a store or a compact encoding. It fits into an `i64`.
    pub fn value(self) -> u64 {
        self.0
    }

    /// The epoch with this number; `None` if the number has more than [`Epoch::BITS`] bits.
    pub fn from_value(value: u64) -> Option<Self> {
        (value >> BITS == 0).then_some(Self(value))
    }

    /// Writes the text form into `text` and returns the part that was used.
    pub(crate) fn encode(self, text: &mut [u8; TEXT_LENGTH]) -> &[u8] {
        for (place, character) in text.iter_mut().rev().enumerate() {
            *character = ALPHABET[(self.0 >> (5 * place)) as usize & 31];
        }
        match self {
            Self::ZERO => &text[TEXT_LENGTH - 1..],
            _ => text,
        }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; TEXT_LENGTH];
        let text = self.encode(&mut text);
        f.write_str(std::str::from_utf8(text).expect("the alphabet is ASCII"))
    }
}

impl FromStr for Epoch {
    type Err = NotAnEpoch;

    fn from_str(text: &str) -> Result<Self, NotAnEpoch> {
        if text == "0" {
            return Ok(Self::ZERO);
        }
        if text.len() != TEXT_LENGTH {
            return Err(NotAnEpoch);
        }
        let mut value = 0;
        for character in text.bytes() {
            let digit = match character {
                b'0'..=b'9' => character - b'0',
                b'a'..=b'v' => character - b'a' + 10,
                _ => return Err(NotAnEpoch),
            };
            value = value << 5 | u64::from(digit);
        }
        match Self::from_value(value) {
            Some(epoch) if epoch != Self::ZERO => Ok(epoch),
            _ => Err(NotAnEpoch),
        }
    }
}

impl Serialize for Epoch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Epoch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_sorts_as_epochs_do(a in 0..1_u64 << BITS, b in 0..1_u64 << BITS) {
            let (a, b) = (Epoch(a), Epoch(b));
            prop_assert_eq!(a.to_string().cmp(&b.to_string()), a.cmp(&b));
            prop_assert_eq!(a.to_string().parse(), Ok(a));
        }

        #[test]
        fn a_new_epoch_is_greater_even_if_the_clock_went_back(previous in 0..1_u64 << 48, now in 0..1_u64 << 41) {
            prop_assert!(Epoch::after(Epoch(previous), now) > Epoch(previous));
        }
    }

    #[test]
    fn what_is_not_an_epoch_is_refused() {
        for bad in [
            "",
            "00",
            "0000000000",
            "zzzzzzzzzz",
            "vvvvvvvvvv",
            "0000ABCDEF",
            "00000000000",
        ] {
            assert_eq!(bad.parse::<Epoch>(), Err(NotAnEpoch), "{bad}");
        }
    }
}
