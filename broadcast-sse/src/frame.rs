//! Frames of the event stream format (WHATWG HTML §9.2.6), and the chunks of HTTP/1.1 (RFC 9112
//! §7.1) that carry them. The one place that writes them.

use std::{io::Write, ops::Range, time::Duration};

use bytes::Bytes;
use chat_model::{ChannelId, Cursor, Position, Seq};
use serde::Serialize;
use service_kit::http::Framing;

/// The frame of an event as a chunk, shared by everyone who listens to its channel.
#[derive(Debug)]
pub(crate) struct EventFrame {
    /// The chunk; the frame is in it, followed by the chunk's own line end.
    pub(crate) chunk: Bytes,
    /// Where the frame begins.
    pub(crate) start: usize,
    /// Where its `id:` line ends.
    pub(crate) after_id: usize,
    /// The value of the `data:` field.
    pub(crate) data: Range<usize>,
}

/// What follows the bytes of a chunk.
pub(crate) const CHUNK_END: &[u8] = b"\r\n";

/// The chunk that ends a body, which has no trailers.
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

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
    let id = id_line(&Cursor::encode([(channel, position)]));
    let type_length = event_type.map_or(0, |event_type| event_type.len() + "event: \n".len());
    let length = id.len() + type_length + "data: \n\n".len() + line.len();
    let mut chunk = Vec::with_capacity(length + 12);
    begin_chunk(&mut chunk, length);
    let start = chunk.len();
    chunk.extend_from_slice(id.as_bytes());
    let after_id = chunk.len();
    if let Some(event_type) = event_type {
        chunk.extend_from_slice(b"event: ");
        chunk.extend_from_slice(event_type.as_bytes());
        chunk.push(b'\n');
    }
    chunk.extend_from_slice(b"data: ");
    let data = chunk.len()..chunk.len() + line.len();
    chunk.extend_from_slice(line);
    chunk.extend_from_slice(b"\n\n");
    debug_assert_eq!(chunk.len(), start + length);
    chunk.extend_from_slice(CHUNK_END);
    EventFrame {
        chunk: chunk.into(),
        start,
        after_id,
        data,
    }
}

/// A frame as a chunk.
pub(crate) fn chunk(frame: &[u8]) -> Bytes {
    let mut chunk = Vec::with_capacity(frame.len() + 12);
    begin_chunk(&mut chunk, frame.len());
    chunk.extend_from_slice(frame);
    chunk.extend_from_slice(CHUNK_END);
    chunk.into()
}

/// The beginning of a chunk of which only the `id:` line is the stream's own; what others share of
/// it, up to its end, follows.
pub(crate) fn chunk_with_id(cursor: &str, shared: &[u8]) -> Bytes {
    let id = id_line(cursor);
    let mut begin = Vec::with_capacity(id.len() + 12);
    begin_chunk(&mut begin, id.len() + shared.len() - CHUNK_END.len());
    begin.extend_from_slice(id.as_bytes());
    begin.into()
}

fn begin_chunk(chunk: &mut Vec<u8>, length: usize) {
    write!(chunk, "{length:x}\r\n").expect("writing to memory never fails");
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
pub(crate) fn ping(framing: Framing) -> Bytes {
    Bytes::from_static(match framing {
        Framing::Chunked => b"16\r\nevent: ping\ndata: {}\n\n\r\n",
        Framing::UntilClose => b"event: ping\ndata: {}\n\n",
    })
}

/// How long a client waits before it connects again, said in a ping: of a block that has `retry:`
/// alone a browser makes nothing, but several other clients make an event without data.
pub(crate) fn ping_with_retry(after: Duration) -> Bytes {
    format!("retry: {}\nevent: ping\ndata: {{}}\n\n", after.as_millis()).into()
}

fn own(name: &str, cursor: Option<&str>, data: &impl Serialize) -> Bytes {
    let id = cursor.map(id_line).unwrap_or_default();
    let data = serde_json::to_string(data).expect("strings and numbers always encode");
    format!("{id}event: {name}\ndata: {data}\n\n").into()
}

#[cfg(test)]
mod tests {
    use chat_model::Epoch;

    use super::*;

    /// What one chunk carries.
    fn content(chunk: &[u8]) -> &[u8] {
        let head = chunk.iter().position(|&byte| byte == b'\r').unwrap();
        let length = std::str::from_utf8(&chunk[..head]).unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        let content = chunk[head..].strip_prefix(CHUNK_END).unwrap();
        let content = content.strip_suffix(CHUNK_END).unwrap();
        assert_eq!(content.len(), length);
        content
    }

    #[test]
    fn chunks_carry_the_frames() {
        let channel = uuid::Uuid::nil().into();
        let position = Position::new(Epoch::from_value(7).unwrap(), 3);
        for (event_type, line) in [(None, "{}".to_owned()), (Some("note"), "x".repeat(300))] {
            let event = event(channel, position, event_type, line.as_bytes());
            let frame = content(&event.chunk);
            assert_eq!(frame, &event.chunk[event.start..event.chunk.len() - 2]);
            assert_eq!(&event.chunk[event.data.clone()], line.as_bytes());
            let text = std::str::from_utf8(frame).unwrap();
            let rest = match event_type {
                Some(event_type) => format!("event: {event_type}\ndata: {line}\n\n"),
                None => format!("data: {line}\n\n"),
            };
            let id = Cursor::encode([(channel, position)]);
            assert_eq!(text, format!("id: {id}\n{rest}"));

            // The same for a stream of several channels, whose ids are its own.
            let shared = &event.chunk[event.after_id..];
            let own = [&chunk_with_id("longer-than-the-other", shared)[..], shared].concat();
            let expected = format!("id: longer-than-the-other\n{rest}");
            assert_eq!(content(&own), expected.as_bytes());
        }
        let ping = ping_with_retry(Duration::from_millis(1));
        assert_eq!(content(&chunk(&ping)), ping);
        assert_eq!(&ping[..], b"retry: 1\nevent: ping\ndata: {}\n\n");
        assert_eq!(
            content(&super::ping(Framing::Chunked)),
            super::ping(Framing::UntilClose)
        );
    }
}
