//! Who listens, and to what: the two questions that log-in will answer.

use chat_model::ChannelId;

/// Who opened a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Somebody of whom nothing is known: everybody, in open mode.
    Guest,
}

/// Whether the caller may listen to the channel: in open mode everybody may who knows its name.
pub(crate) fn may_listen(caller: &Caller, _channel: ChannelId) -> bool {
    match caller {
        Caller::Guest => true,
    }
}
