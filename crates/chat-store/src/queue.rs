//! How posts share the memory in which they wait for the writer.

use chat_model::NewMessage;

/// Bytes of the queue that one permit stands for.
pub(crate) const PERMIT_BYTES: usize = 1024;

/// A message's share of the queue: its text and what goes with it.
pub(crate) fn permits_for(message: &NewMessage) -> u32 {
    let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let from = message.from.as_ref();
    let bytes = length(&message.text)
        + length(&message.data)
        + from.map_or(0, |from| length(&from.id) + length(&from.name));
    // The queue has at least 1,024 permits: a larger message takes all of those.
    u32::try_from(bytes / PERMIT_BYTES + 1)
        .unwrap_or(u32::MAX)
        .min(1024)
}
