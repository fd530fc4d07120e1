use chat_model::{ChannelId, Seq};
use serde::Serialize;

/// Why events are missing from a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum GapReason {
    /// They are older than what the store keeps.
    Retention,
    /// The log was cut back: what the listener has seen of them no longer exists.
    Epoch,
    /// They were stored, but the store can no longer read them.
    Damaged,
    /// The stream's cursor could not be read, so their number is unknown.
    Cursor,
}

/// Events that a stream cannot deliver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Gap {
    /// The channel.
    pub(crate) channel: ChannelId,
    /// The first number that is missing; `None` if unknown.
    pub(crate) from: Option<Seq>,
    /// The last number that is missing.
    pub(crate) to: Seq,
    /// Why they are missing.
    pub(crate) reason: GapReason,
}
