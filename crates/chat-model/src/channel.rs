use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// The name of a channel: a UUID of any version or variant (RFC 9562 §4).
///
/// The canonical form has 36 lower-case characters. The parser accepts upper case and folds it, but
/// refuses the forms with braces, without hyphens or with `urn:uuid:`, so that each channel has
/// exactly one topic and one URL.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(Uuid);

/// The text is not a UUID in the 36-character form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a channel is named by a UUID such as c3743620-4b1b-4c2b-9d80-05b0e5a2c1f0")]
pub struct NotAChannel;

impl ChannelId {
    /// Parses the 36-character form from bytes, such as the last level of an MQTT topic.
    ///
    /// # Errors
    /// When the bytes are anything else.
    pub fn parse_bytes(text: &[u8]) -> Result<Self, NotAChannel> {
        if text.len() != uuid::fmt::Hyphenated::LENGTH {
            return Err(NotAChannel);
        }
        Uuid::try_parse_ascii(text)
            .map(Self)
            .map_err(|_| NotAChannel)
    }

    /// The UUID.
    pub fn uuid(self) -> Uuid {
        self.0
    }

    /// A hash that is the same on every node, in every version and on every machine.
    ///
    /// Cursors contain it (see [`Cursor`](crate::Cursor)), and it spreads channels over
    /// connections. It does not resist an attacker who looks for collisions.
    pub fn stable_hash(self) -> u64 {
        let (high, low) = self.0.as_u64_pair();
        mix(high ^ mix(low))
    }
}

/// The finalizer of SplitMix64: every input bit affects every output bit.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl From<Uuid> for ChannelId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl FromStr for ChannelId {
    type Err = NotAChannel;

    fn from_str(text: &str) -> Result<Self, NotAChannel> {
        Self::parse_bytes(text.as_bytes())
    }
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl fmt::Debug for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ChannelId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ChannelId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upper_case_is_folded_and_other_forms_are_refused() {
        let channel: ChannelId = "C3743620-4B1B-4C2B-9D80-05B0E5A2C1F0".parse().unwrap();
        assert_eq!(channel.to_string(), "c3743620-4b1b-4c2b-9d80-05b0e5a2c1f0");
        for bad in [
            "",
            "c37436204b1b4c2b9d8005b0e5a2c1f0",
            "{c3743620-4b1b-4c2b-9d80-05b0e5a2c1f0}",
            "urn:uuid:c3743620-4b1b-4c2b-9d80-05b0e5a2c1f0",
            "c3743620-4b1b-4c2b-9d80-05b0e5a2c1fg",
            "c3743620-4b1b-4c2b-9d80-05b0e5a2c1f\u{e9}",
        ] {
            assert_eq!(bad.parse::<ChannelId>(), Err(NotAChannel), "{bad}");
        }
    }

    #[test]
    fn the_stable_hash_never_changes() {
        // Browsers keep cursors across a deployment; a changed hash would make them unreadable.
        let channel: ChannelId = "c3743620-4b1b-4c2b-9d80-05b0e5a2c1f0".parse().unwrap();
        assert_eq!(channel.stable_hash(), 3_307_306_817_164_056_936);
    }
}
