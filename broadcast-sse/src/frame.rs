//! Writes frames of the event stream format (WHATWG HTML §9.2.6), and the HTTP/1.1 chunks (RFC 9112
//! §7.1) that carry them. No other code writes them.

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use chat_model::{ChannelId, Cursor, EventHead, Position, Seq};
use http_server::http::Framing;
use serde::Serialize;

use crate::hub::{Encoded, Gap};

/// The line end after the bytes of a chunk.
pub(crate) const CHUNK_END: &[u8] = b"\r\n";

/// The chunk that ends a body without trailers.
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

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

/// A message as a chunk, for everyone who listens to its channel. Its line contains neither CR nor LF, so
/// it can be used unchanged as one `data:` field. Read the chunk with [`EventFrame`].
pub(crate) fn event(head: &EventHead, line: &[u8]) -> Encoded {
    let id = id_line(&Cursor::encode([(head.channel, head.position())]));
    let event_type = head.event_type.as_deref();
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
    let data = chunk.len();
    chunk.extend_from_slice(line);
    chunk.extend_from_slice(b"\n\n");
    debug_assert_eq!(chunk.len(), start + length);
    chunk.extend_from_slice(CHUNK_END);
    // An event is far shorter than 4 GiB.
    let place = |place: usize| place as u32;
    Encoded {
        bytes: chunk.into(),
        line: place(data)..place(data + line.len()),
        marks: [place(start), place(after_id)],
    }
}

/// Reads what [`event`] has written: the frame begins at the first mark, its `id:` line ends at the
/// second, and the chunk's line end follows the frame.
#[derive(Clone, Copy)]
pub(crate) struct EventFrame<'a>(pub(crate) &'a Encoded);

impl EventFrame<'_> {
    /// The whole frame. Its `id:` is the cursor of a stream with only this channel.
    pub(crate) fn frame(self) -> Bytes {
        self.0.bytes.slice(self.start()..self.end())
    }

    /// The whole frame as one chunk.
    pub(crate) fn chunk(self) -> Bytes {
        self.0.bytes.clone()
    }

    /// The frame without its `id:` line, for streams of several channels.
    pub(crate) fn frame_without_id(self) -> Bytes {
        self.0.bytes.slice(self.after_id()..self.end())
    }

    /// The frame without its `id:` line, and the end of its chunk.
    pub(crate) fn chunk_without_id(self) -> Bytes {
        self.0.bytes.slice(self.after_id()..)
    }

    /// The `id:` line of the frame.
    pub(crate) fn id_line(self) -> Bytes {
        self.0.bytes.slice(self.start()..self.after_id())
    }

    fn start(self) -> usize {
        self.0.marks[0] as usize
    }

    fn after_id(self) -> usize {
        self.0.marks[1] as usize
    }

    fn end(self) -> usize {
        self.0.bytes.len() - CHUNK_END.len()
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

/// The beginning of a chunk up to the end of its `id:` line, which is different for each stream. The rest,
/// up to the end of the chunk, is shared and follows separately.
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

/// `event: gap`; the cursor is the position after what is missing.
pub(crate) fn gap(gap: &Gap, cursor: Option<&str>) -> Bytes {
    own("gap", cursor, gap)
}

/// `event: ready`: from here on, nothing that is posted is missed.
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

/// `event: ping`, without an id. It has data, because a browser would drop it otherwise.
pub(crate) fn ping(framing: Framing) -> Bytes {
    Bytes::from_static(match framing {
        Framing::Chunked => b"16\r\nevent: ping\ndata: {}\n\n\r\n",
        Framing::UntilClose => b"event: ping\ndata: {}\n\n",
    })
}

/// A ping that also says how long a client should wait before it connects again. A block with only
/// `retry:` would be ignored by browsers, but several other clients would turn it into an empty event.
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

    /// The content of one chunk.
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
            let head = EventHead {
                channel,
                epoch: position.epoch,
                seq: position.seq,
                at: None,
                event_type: event_type.map(Into::into),
            };
            let event = event(&head, line.as_bytes());
            let place = event.line.start as usize..event.line.end as usize;
            assert_eq!(&event.bytes[place], line.as_bytes());
            let event = EventFrame(&event);
            assert_eq!(content(&event.chunk()), &event.frame()[..]);
            let rest = match event_type {
                Some(event_type) => format!("event: {event_type}\ndata: {line}\n\n"),
                None => format!("data: {line}\n\n"),
            };
            let id = Cursor::encode([(channel, position)]);
            assert_eq!(event.id_line(), format!("id: {id}\n"));
            assert_eq!(event.frame(), format!("id: {id}\n{rest}"));
            assert_eq!(event.frame_without_id(), rest);

            // The same for a stream of several channels, which has its own ids.
            let shared = event.chunk_without_id();
            let own = [
                &chunk_with_id("longer-than-the-other", &shared)[..],
                &shared,
            ]
            .concat();
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
