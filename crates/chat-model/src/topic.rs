use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::ChannelId;

/// The prefix of all channels' topics: a channel's topic is `<prefix>/<uuid>`.
///
/// At most 200 bytes of printable ASCII, with slashes allowed inside. It contains neither `+` nor
/// `#` and does not begin with `$`: MQTT reserves these for filters and for the broker (MQTT 3.1.1
/// §4.7.1, §4.7.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPrefix(String);

/// The text cannot be a topic prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a topic prefix has 1 to 200 printable ASCII characters without spaces, `+` or `#`; it does not \
     begin with `$`, and neither begins nor ends with `/`"
)]
pub struct BadPrefix;

impl TopicPrefix {
    /// Checks a prefix.
    ///
    /// # Errors
    /// When the text breaks one of the rules above.
    pub fn new(prefix: impl Into<String>) -> Result<Self, BadPrefix> {
        let prefix = prefix.into();
        let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'+' | b'#');
        let good = (1..=200).contains(&prefix.len())
            && prefix.bytes().all(plain)
            && !prefix.starts_with(['/', '$'])
            && !prefix.ends_with('/');
        if good {
            Ok(Self(prefix))
        } else {
            Err(BadPrefix)
        }
    }

    /// The topic of this channel.
    pub fn topic(&self, channel: ChannelId) -> String {
        format!("{}/{channel}", self.0)
    }

    /// The topic on which a publisher shows that it is alive. It names no channel, but
    /// [`filter`](Self::filter) matches it.
    pub fn heartbeat(&self) -> String {
        format!("{}/heartbeat", self.0)
    }

    /// The filter that matches the topics of all channels, but nothing below them.
    pub fn filter(&self) -> String {
        format!("{}/+", self.0)
    }

    /// The channel that this topic belongs to; `None` for every other topic.
    pub fn channel(&self, topic: &[u8]) -> Option<ChannelId> {
        let rest = topic.strip_prefix(self.0.as_bytes())?.strip_prefix(b"/")?;
        ChannelId::parse_bytes(rest).ok()
    }
}

impl Default for TopicPrefix {
    fn default() -> Self {
        Self("chat".to_owned())
    }
}

impl fmt::Display for TopicPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl serde::Serialize for TopicPrefix {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TopicPrefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_leads_back_to_its_channel() {
        let channel: ChannelId = "c3743620-4b1b-4c2b-9d80-05b0e5a2c1f0".parse().unwrap();
        let prefix = TopicPrefix::new("site/chat").unwrap();
        assert_eq!(
            prefix.channel(prefix.topic(channel).as_bytes()),
            Some(channel)
        );
        assert_eq!(prefix.channel(prefix.heartbeat().as_bytes()), None);
        assert_eq!(prefix.channel(b"site/chat/now"), None);
        assert_eq!(
            prefix.channel(format!("{}/now", prefix.topic(channel)).as_bytes()),
            None
        );
        assert_eq!(prefix.channel(format!("chat/{channel}").as_bytes()), None);
    }

    #[test]
    fn filters_and_system_topics_are_no_prefix() {
        for bad in [
            "",
            "/",
            "chat/",
            "/chat",
            "a+b",
            "#",
            "$SYS",
            "a b",
            "caf\u{e9}",
        ] {
            assert_eq!(TopicPrefix::new(bad), Err(BadPrefix), "{bad}");
        }
    }
}
