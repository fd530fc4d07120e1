use chat_model::{ChannelId, Seq};
use serde::Serialize;

/// Why events are missing from a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum GapReason {
    /// They are older than what the store keeps.
    Retention,
    /// The log was cut back behind them: what the listener has seen of them is no longer there.
    Epoch,
    /// They were stored, and the store cannot read them any more.
    Damaged,
    /// The stream's cursor could not be read, so nobody knows how many.
    Cursor,
}

/// Events that a stream cannot bring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Gap {
    /// The channel.
    pub(crate) channel: ChannelId,
    /// The first that is missing; `None` if nobody knows.
    pub(crate) from: Option<Seq>,
    /// The last that is missing.
    pub(crate) to: Seq,
    /// Why.
    pub(crate) reason: GapReason,
}
