use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::epoch;
use crate::timestamp::{parse_timestamp, timestamp};
use crate::{ChannelId, Epoch, MESSAGE_TYPE, NewMessage, Position, Seq};

/// A message that has been given its place in a log, ready to be encoded.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// The channel.
    pub channel: ChannelId,
    /// The epoch of the channel's log.
    pub epoch: Epoch,
    /// Its number in the channel.
    pub seq: Seq,
    /// The identifier that the sender chose, or a UUIDv7 from the service.
    pub id: Uuid,
    /// When it was stored, in milliseconds since 1970.
    pub at: u64,
    /// What was said.
    pub message: &'a NewMessage,
}

impl Event<'_> {
    /// The event as one line of JSON without the line end. These bytes are stored, answered,
    /// published and streamed; they are never encoded again. They contain neither CR nor LF.
    pub fn encode(&self) -> Bytes {
        /// Room for names, punctuation, ids, the longest numbers and the longest type. The sender is
        /// not included: its two fields have up to 128 bytes each, for which the buffer may grow.
        const REST: usize = 256;
        let message = self.message;
        let length = |part: &Option<String>| part.as_ref().map_or(0, String::len);
        let mut line = Vec::with_capacity(REST + length(&message.text) + length(&message.data));
        // Fields that need no escaping are written directly, in wire order.
        line.extend_from_slice(br#"{"channel":""#);
        extend_uuid(&mut line, self.channel.uuid());
        line.extend_from_slice(br#"","epoch":""#);
        line.extend_from_slice(self.epoch.encode(&mut [0; epoch::TEXT_LENGTH]));
        line.extend_from_slice(br#"","seq":"#);
        extend_json(&mut line, &self.seq);
        line.extend_from_slice(br#","id":""#);
        extend_uuid(&mut line, self.id);
        line.extend_from_slice(br#"","at":""#);
        line.extend_from_slice(&timestamp(self.at));
        line.extend_from_slice(br#"","type":""#);
        line.extend_from_slice(message.event_type.as_str().as_bytes());
        line.push(b'"');
        if let Some(from) = &message.from {
            line.extend_from_slice(br#","from":"#);
            extend_json(&mut line, from);
        }
        if let Some(text) = &message.text {
            line.extend_from_slice(br#","text":"#);
            extend_text(&mut line, text);
        }
        if let Some(data) = &message.data {
            line.extend_from_slice(br#","data":"#);
            line.extend_from_slice(data.as_bytes());
        }
        line.push(b'}');
        line.into()
    }
}

fn extend_uuid(line: &mut Vec<u8>, uuid: Uuid) {
    let mut text = Uuid::encode_buffer();
    let text = uuid.as_hyphenated().encode_lower(&mut text);
    line.extend_from_slice(text.as_bytes());
}

/// Writes a JSON string. Most texts need no escapes; this checks faster than byte by byte.
fn extend_text(line: &mut Vec<u8>, text: &str) {
    let needs_escape = |byte: u8| byte < b' ' || matches!(byte, b'"' | b'\\');
    if text
        .bytes()
        .fold(false, |any, byte| any | needs_escape(byte))
    {
        return extend_json(line, text);
    }
    line.push(b'"');
    line.extend_from_slice(text.as_bytes());
    line.push(b'"');
}

fn extend_json(line: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    serde_json::to_writer(line, value).expect("strings and numbers always encode");
}

/// What a reader must know about an event to put it in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventHead {
    /// The channel.
    pub channel: ChannelId,
    /// The epoch.
    pub epoch: Epoch,
    /// The number.
    pub seq: Seq,
    /// When it was stored, in milliseconds since 1970; `None` if that cannot be read.
    pub at: Option<u64>,
    /// The type; `None` for [`MESSAGE_TYPE`], which needs no `event:` line.
    pub event_type: Option<Box<str>>,
}

/// The bytes are not an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an event")]
pub struct NotAnEvent;

#[derive(Deserialize)]
struct HeadFields<'a> {
    channel: ChannelId,
    epoch: Epoch,
    seq: Seq,
    #[serde(default, borrow)]
    at: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    event_type: Cow<'a, str>,
}

impl EventHead {
    /// Reads the head of one encoded event.
    ///
    /// The whole line must be JSON without CR or LF, so that it can be used unchanged as a stream's
    /// `data:` line (WHATWG HTML §9.2.6). Its number must be from 1 to 2^53 - 1. Its type must be one
    /// that a sender may use or that is reserved for Hark.
    ///
    /// # Errors
    /// When one of these does not hold.
    pub fn parse(line: &[u8]) -> Result<Self, NotAnEvent> {
        // serde would accept bytes that are not UTF-8, and read a struct from an array.
        let line = std::str::from_utf8(line).map_err(|_| NotAnEvent)?;
        let holds = |byte| line.as_bytes().contains(&byte);
        if !line.starts_with('{') || holds(b'\r') || holds(b'\n') {
            return Err(NotAnEvent);
        }
        let fields: HeadFields<'_> = serde_json::from_str(line).map_err(|_| NotAnEvent)?;
        if !(1..1 << 53).contains(&fields.seq) || fields.epoch == Epoch::ZERO {
            return Err(NotAnEvent);
        }
        let event_type = match fields.event_type.as_ref() {
            MESSAGE_TYPE => None,
            own if own.starts_with("hark.") || crate::EventType::new(own).is_ok() => {
                Some(own.into())
            }
            _ => return Err(NotAnEvent),
        };
        // Types that begin with `hark.` are reserved for Hark, but they must not break a line either.
        if event_type
            .as_deref()
            .is_some_and(|name: &str| !name.bytes().all(|b| b.is_ascii_graphic()))
        {
            return Err(NotAnEvent);
        }
        Ok(Self {
            channel: fields.channel,
            epoch: fields.epoch,
            seq: fields.seq,
            at: parse_timestamp(&fields.at),
            event_type,
        })
    }

    /// The position just after this event.
    pub fn position(&self) -> Position {
        Position::new(self.epoch, self.seq)
    }
}

/// The parts of an event that are shown to people.
#[derive(Debug, Deserialize)]
pub struct EventView<'a> {
    /// The event's identifier.
    pub id: Uuid,
    /// When it was stored, RFC 3339.
    #[serde(borrow)]
    pub at: Cow<'a, str>,
    /// Who said it.
    #[serde(default)]
    pub from: SenderView,
    /// The text, if it has one.
    #[serde(default, borrow)]
    pub text: Option<Cow<'a, str>>,
}

/// The sender of an [`EventView`].
#[derive(Debug, Default, Deserialize)]
pub struct SenderView {
    /// The identifier.
    pub id: Option<String>,
    /// The name.
    pub name: Option<String>,
}

impl<'a> EventView<'a> {
    /// Reads one encoded event.
    pub fn parse(line: &'a [u8]) -> Result<Self, NotAnEvent> {
        serde_json::from_slice(line).map_err(|_| NotAnEvent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(message: &NewMessage) -> Bytes {
        let event = Event {
            channel: "c3743620-4b1b-4c2b-9d80-05b0e5a2c1f0".parse().unwrap(),
            epoch: Epoch::from_value(77).unwrap(),
            seq: 42,
            id: Uuid::nil(),
            at: 1_795_251_600_123,
            message,
        };
        event.encode()
    }

    #[test]
    fn the_line_has_the_documented_form() {
        let body = br#"{"data":{"any": "json"},"text":"hello","from":{"name":"guest"}}"#;
        let line = encode(&NewMessage::from_json(body).unwrap());
        let expected = concat!(
            r#"{"channel":"c3743620-4b1b-4c2b-9d80-05b0e5a2c1f0","epoch":"000000002d","seq":42,"#,
            r#""id":"00000000-0000-0000-0000-000000000000","at":"2026-11-21T09:00:00.123Z","#,
            r#""type":"message","from":{"name":"guest"},"text":"hello","data":{"any":"json"}}"#
        );
        assert_eq!(std::str::from_utf8(&line).unwrap(), expected);
        let head = EventHead::parse(&line).unwrap();
        assert_eq!((head.seq, head.event_type.clone()), (42, None));
        assert_eq!(head.at, Some(1_795_251_600_123));
    }

    #[test]
    fn what_is_not_an_event_is_refused() {
        let line = encode(&NewMessage::text("a"));
        let text = std::str::from_utf8(&line).unwrap();
        for bad in [
            text.replace("42", "0"),
            text.replace("42", "-1"),
            text.replace("42", "9007199254740992"),
            text.replace("000000002d", "0"),
            text.replace("\"message\"", "\"ping\""),
            text.replace("\"message\"", "\"hark.\\n\""),
            text.replace(',', ",\n"),
            text[..text.len() - 1].to_owned(),
            format!(r#"["{}","000000002d",42,"message"]"#, uuid::Uuid::nil()),
            String::new(),
        ] {
            assert_eq!(EventHead::parse(bad.as_bytes()), Err(NotAnEvent), "{bad}");
        }
        let at = text.find("\"a\"").unwrap() + 1;
        let not_utf8 = [&line[..at], b"\xff", &line[at..]].concat();
        assert_eq!(EventHead::parse(&not_utf8), Err(NotAnEvent));
    }

    proptest! {
        #[test]
        fn any_text_survives_and_never_breaks_the_line(text in any::<String>()) {
            let line = encode(&NewMessage::text(text.clone()));
            prop_assert!(!line.iter().any(|byte| matches!(byte, b'\r' | b'\n')));
            prop_assert!(EventHead::parse(&line).is_ok());
            prop_assert_eq!(EventView::parse(&line).unwrap().text.unwrap(), text);
        }
    }
}
