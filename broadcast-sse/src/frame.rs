//! Frames of the event stream format (WHATWG HTML §9.2.6). The one place that writes them.

use std::{ops::Range, time::Duration};

use bytes::Bytes;
use chat_model::{ChannelId, Cursor, Position, Seq};
use serde::Serialize;

/// The frame of an event, shared by everyone who listens to its channel.
#[derive(Debug)]
pub(crate) struct EventFrame {
    pub(crate) whole: Bytes,
    /// Where the `id:` line ends.
    pub(crate) after_id: usize,
    /// The value of the `data:` field.
    pub(crate) data: Range<usize>,
}

/// Why events are missing from a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum GapReason {
    /// They are older than what the store keeps.
    Retention,
    /// The log was cut back behind them: what the listener has seen of them is no longer there.
    Epoch,
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

#[derive(Serialize)]
struct Ready {
    channels: Vec<ReadyChannel>,
}

#[derive(Serialize)]
struct ReadyChannel {
    channel: ChannelId,
    epoch: chat_model::Epoch,
    seq: Seq,
}

/// A message; its line holds neither CR nor LF, so it is one `data:` field as it stands.
pub(crate) fn event(
    channel: ChannelId,
    position: Position,
    event_type: Option<&str>,
    line: &[u8],
) -> EventFrame {
    let cursor = Cursor::encode([(channel, position)]);
    let mut whole = Vec::with_capacity(line.len() + cursor.len() + 32);
    whole.extend_from_slice(id_line(&cursor).as_bytes());
    let after_id = whole.len();
    if let Some(event_type) = event_type {
        whole.extend_from_slice(b"event: ");
        whole.extend_from_slice(event_type.as_bytes());
        whole.push(b'\n');
    }
    whole.extend_from_slice(b"data: ");
    let data = whole.len()..whole.len() + line.len();
    whole.extend_from_slice(line);
    whole.extend_from_slice(b"\n\n");
    EventFrame {
        whole: whole.into(),
        after_id,
        data,
    }
}

/// The `id:` line of a frame whose other lines are shared.
pub(crate) fn id_line(cursor: &str) -> String {
    format!("id: {cursor}\n")
}

/// `event: gap`; the cursor lies past what is missing.
pub(crate) fn gap(gap: &Gap, cursor: Option<&str>) -> Bytes {
    own("gap", cursor, gap)
}

/// `event: ready`: from here on nothing that is posted is missed.
pub(crate) fn ready(positions: &[(ChannelId, Position)], cursor: &str) -> Bytes {
    let channels = positions
        .iter()
        .map(|&(channel, position)| ReadyChannel {
            channel,
            epoch: position.epoch,
            seq: position.seq,
        })
        .collect();
    own("ready", Some(cursor), &Ready { channels })
}

/// `event: ping`, without an id. It has data, or a browser would drop it.
pub(crate) fn ping() -> Bytes {
    Bytes::from_static(b"event: ping\ndata: {}\n\n")
}

/// How long a client waits before it connects again.
pub(crate) fn retry(after: Duration) -> Bytes {
    format!("retry: {}\n\n", after.as_millis()).into()
}

fn own(name: &str, cursor: Option<&str>, data: &impl Serialize) -> Bytes {
    let id = cursor.map(id_line).unwrap_or_default();
    let data = serde_json::to_string(data).expect("strings and numbers always encode");
    format!("{id}event: {name}\ndata: {data}\n\n").into()
}
