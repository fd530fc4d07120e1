use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{ChannelId, Epoch, EpochStart, Head, Seq};

/// The most channels in one [`HeadsQuery`].
pub const MAX_HEADS: usize = 1_000;
/// The most events in one [`Page`].
pub const MAX_PAGE_EVENTS: usize = 1_000;
/// The most bytes of events in one [`Page`]; if there are events, a page has at least one.
pub const MAX_PAGE_BYTES: usize = 1024 * 1024;

/// The body of `POST /heads`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadsQuery {
    /// At most [`MAX_HEADS`] channels. The list may be empty, to ask for `behind` alone.
    pub channels: Vec<ChannelId>,
}

/// The answer to `POST /heads`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heads {
    /// Whether an event has waited more than a second for the broker's acknowledgement.
    pub behind: bool,
    /// The payloads of this chat-service's heartbeats that the broker acknowledged within the last
    /// 10 s: every subscriber should have received them. Empty if the chat-service has lost its
    /// broker, or sends no heartbeats.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub heartbeats: Vec<String>,
    /// The heads of the requested channels, in the order of the request.
    pub heads: Vec<Head>,
    /// Requested channels that have no head in the answer because their entries in the store are
    /// damaged; usually none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<ChannelId>,
}

/// A range of events that were stored but can no longer be read, because a disk or memory has
/// changed them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damaged {
    /// The first number.
    pub from: Seq,
    /// The last number, which may be the same.
    pub to: Seq,
}

/// A page of history: `GET /channels/{c}/messages`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Page<'a> {
    /// The channel.
    pub channel: ChannelId,
    /// The current epoch.
    pub epoch: Epoch,
    /// The newest number.
    pub head: Seq,
    /// The oldest number that is still kept.
    pub first: Seq,
    /// The epochs of the log, oldest first.
    pub epochs: Vec<EpochStart>,
    /// Damaged ranges between or around `messages`, ascending; usually none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<Damaged>,
    /// The events in ascending order, as stored.
    #[serde(borrow)]
    pub messages: Vec<&'a RawValue>,
}

impl Page<'_> {
    /// The head of the log when the page was read.
    pub fn to_head(&self) -> Head {
        Head {
            channel: self.channel,
            epoch: self.epoch,
            head: self.head,
            first: self.first,
            epochs: self.epochs.clone(),
        }
    }
}
