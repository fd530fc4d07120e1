use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{ChannelId, Epoch, EpochStart, Head, Seq};

/// Most channels in one [`HeadsQuery`].
pub const MAX_HEADS: usize = 1_000;
/// Most events in one [`Page`].
pub const MAX_PAGE_EVENTS: usize = 1_000;
/// Most bytes of events in one [`Page`]; a page always has one event if there is one.
pub const MAX_PAGE_BYTES: usize = 1024 * 1024;

/// The body of `POST /heads`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadsQuery {
    /// At most [`MAX_HEADS`] channels; none is allowed, to ask for `behind` alone.
    pub channels: Vec<ChannelId>,
}

/// The answer to `POST /heads`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heads {
    /// Whether an event has been without the broker's acknowledgement for more than a second.
    pub behind: bool,
    /// The heartbeats of this chat-service that the broker has acknowledged within the last 10 s, by
    /// their payload: whoever is subscribed should have had them. Empty from a chat-service that is
    /// away from its broker, or knows of no heartbeats.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub heartbeats: Vec<String>,
    /// The heads of the channels asked, in the order of the question.
    pub heads: Vec<Head>,
    /// Channels that were asked and have no head there, because their entries in the store are
    /// damaged; usually none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<ChannelId>,
}

/// Numbers of a log whose events were stored and cannot be read any more: a disk or memory has
/// changed them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damaged {
    /// The first of them.
    pub from: Seq,
    /// The last, which may be the same.
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
    /// What lies between or around `messages` and is damaged, ascending; usually nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<Damaged>,
    /// The events in ascending order, as stored.
    #[serde(borrow)]
    pub messages: Vec<&'a RawValue>,
}

impl Page<'_> {
    /// The head of the log at the moment in which the page was read.
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
