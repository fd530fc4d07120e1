use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::error::Category;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::explain_json;

mod form;

/// The type of a message whose sender gave none; browsers pass these to `onmessage`.
pub const MESSAGE_TYPE: &str = "message";

/// A message from a sender: checked, but not yet part of a log.
///
/// It has a `text`, a `data` or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMessage {
    /// Any Unicode text.
    pub text: Option<String>,
    /// JSON in the sender's own tokens, so that numbers keep every digit. The white space between
    /// the tokens is removed.
    pub data: Option<String>,
    /// The type of the event.
    pub event_type: EventType,
    /// The identifier that the sender chose. A second message with the same identifier is a repeat.
    pub id: Option<Uuid>,
    /// Who the sender claims to be.
    pub from: Option<Sender>,
}

/// Who sent a message. In open mode this is what the caller claims.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sender {
    /// An identifier that the sender chose, 1 to 128 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// A display name, 1 to 128 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// The type of an event: `message` or the sender's own, `[a-z0-9._-]{1,64}`.
///
/// Names that a stream or a browser uses itself (`ready`, `gap`, `ping`, `open`, `error`) and names
/// that begin with `hark.` are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventType(String);

/// Why a body is not a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The body cannot be read at all: it is not UTF-8 or not JSON. The sender's program is at fault.
    #[error("the body is not {expected}: {detail}")]
    Unreadable {
        /// What it should have been.
        expected: &'static str,
        /// What is wrong, and where.
        detail: String,
    },
    /// The body can be read, but one field is not acceptable.
    #[error("`{field}`: {detail}")]
    Field {
        /// The field's name, or `body` if the fault is not in a single field.
        field: String,
        /// What to change.
        detail: String,
    },
}

impl MessageError {
    fn field(field: &str, detail: impl fmt::Display) -> Self {
        Self::Field {
            field: field.to_owned(),
            detail: detail.to_string(),
        }
    }
}

/// The body of a post. Its fields are parsed later, one by one, so that an error can name its field.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    text: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "type", deserialize_with = "present")]
    event_type: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    from: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SenderFields {
    id: Option<String>,
    name: Option<String>,
}

/// Tells an explicit `null` from a missing field: `"data": null` is data.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl NewMessage {
    /// A message of type `message` with only a text.
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            text: Some(text.into()),
            data: None,
            event_type: EventType::default(),
            id: None,
            from: None,
        }
    }

    /// Reads a plain-text body.
    pub fn from_text(body: &[u8]) -> Result<Self, MessageError> {
        let text = utf8(body)?;
        if text.is_empty() {
            return Err(MessageError::field("body", "the text is empty"));
        }
        Ok(Self::text(text))
    }

    /// Reads a JSON body: an object with `text`, `data`, `type`, `id` and `from`.
    pub fn from_json(body: &[u8]) -> Result<Self, MessageError> {
        let body = utf8(body)?;
        // serde would also read the struct from an array.
        if !body
            .trim_start_matches([' ', '\t', '\r', '\n'])
            .starts_with('{')
        {
            serde_json::from_str::<serde::de::IgnoredAny>(body).map_err(|error| {
                let why = explain_json(body, &error);
                not_json(format!("{why}; send plain text as text/plain"))
            })?;
            return Err(MessageError::field("body", "it must be a JSON object"));
        }
        let fields: Fields<'_> = serde_json::from_str(body).map_err(|error| {
            let why = explain_json(body, &error);
            match error.classify() {
                Category::Data => MessageError::field(&quoted(&error.to_string()), why),
                _ => not_json(why),
            }
        })?;
        if fields.text.is_none() && fields.data.is_none() {
            return Err(MessageError::field(
                "text",
                "a message needs `text` or `data`",
            ));
        }
        Ok(Self {
            text: fields.text.map(|raw| string("text", raw)).transpose()?,
            data: fields.data.map(|raw| without_white_space(raw.get())),
            event_type: match fields.event_type {
                Some(raw) => EventType::new(&string("type", raw)?)?,
                None => EventType::default(),
            },
            id: match fields.id {
                Some(raw) => Some(client_id(&string("id", raw)?)?),
                None => None,
            },
            from: fields.from.map(sender).transpose()?,
        })
    }

    /// A digest of everything in the message. It tells a repeated post from a different one with the
    /// same id or key.
    pub fn fingerprint(&self) -> [u8; 16] {
        let mut digest = Sha256::new();
        let from = self.from.as_ref();
        let id = self.id.map(|id| id.to_string());
        let parts = [
            self.text.as_deref(),
            self.data.as_deref(),
            Some(self.event_type.as_str()),
            id.as_deref(),
            from.and_then(|from| from.id.as_deref()),
            from.and_then(|from| from.name.as_deref()),
        ];
        for part in parts {
            // The length separates adjacent fields, and a missing field from an empty one.
            digest.update(
                part.map_or(u64::MAX, |part| part.len() as u64)
                    .to_le_bytes(),
            );
            digest.update(part.unwrap_or_default());
        }
        let mut short = [0; 16];
        short.copy_from_slice(&digest.finalize()[..16]);
        short
    }
}

impl EventType {
    /// Checks a type that a sender gave.
    ///
    /// # Errors
    /// When the name has other characters or another length, or is reserved.
    pub fn new(name: &str) -> Result<Self, MessageError> {
        let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        if !(1..=64).contains(&name.len()) || !name.bytes().all(plain) {
            let detail = "it must be 1 to 64 of the characters a-z, 0-9, `.`, `_` and `-`";
            return Err(MessageError::field("type", detail));
        }
        if matches!(name, "ready" | "gap" | "ping" | "open" | "error") || name.starts_with("hark.")
        {
            let detail = format!("`{name}` is reserved for the stream itself");
            return Err(MessageError::field("type", detail));
        }
        Ok(Self(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for EventType {
    fn default() -> Self {
        Self(MESSAGE_TYPE.to_owned())
    }
}

fn utf8(body: &[u8]) -> Result<&str, MessageError> {
    std::str::from_utf8(body).map_err(|error| MessageError::Unreadable {
        expected: "UTF-8",
        detail: format!(
            "byte {} does not begin a character",
            error.valid_up_to() + 1
        ),
    })
}

fn not_json(detail: String) -> MessageError {
    MessageError::Unreadable {
        expected: "JSON",
        detail,
    }
}

/// The name between the first backticks of serde's message: the field that is at fault.
fn quoted(message: &str) -> String {
    message.split('`').nth(1).unwrap_or("body").to_owned()
}

fn string(field: &str, raw: &RawValue) -> Result<String, MessageError> {
    serde_json::from_str(raw.get()).map_err(|error| match error.classify() {
        Category::Data => MessageError::field(field, "it must be a string"),
        // The token is a JSON string; all that a Rust string cannot hold is half a surrogate pair.
        _ => MessageError::field(field, "it is not Unicode text: it has a lone surrogate"),
    })
}

fn client_id(text: &str) -> Result<Uuid, MessageError> {
    match Uuid::try_parse(text) {
        Ok(id) if text.len() == uuid::fmt::Hyphenated::LENGTH => Ok(id),
        _ => Err(MessageError::field(
            "id",
            "it must be a UUID in the 36-character form",
        )),
    }
}

fn sender(raw: &RawValue) -> Result<Sender, MessageError> {
    if !raw.get().starts_with('{') {
        return Err(MessageError::field(
            "from",
            "it must be an object with `id` and `name`",
        ));
    }
    let fields: SenderFields = serde_json::from_str(raw.get())
        .map_err(|error| MessageError::field("from", explain_json(raw.get(), &error)))?;
    let sender = Sender {
        id: fields.id,
        name: fields.name,
    };
    check_lengths(&sender)?;
    Ok(sender)
}

fn check_lengths(sender: &Sender) -> Result<(), MessageError> {
    for (field, value) in [("from.id", &sender.id), ("from.name", &sender.name)] {
        if value
            .as_ref()
            .is_some_and(|value| !(1..=128).contains(&value.len()))
        {
            return Err(MessageError::field(field, "it must be 1 to 128 bytes long"));
        }
    }
    Ok(())
}

/// Removes the white space between the tokens of a valid JSON text.
fn without_white_space(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
    for character in json.chars() {
        if in_string {
            in_string = escaped || character != '"';
            escaped = !escaped && character == '\\';
        } else if matches!(character, ' ' | '\t' | '\r' | '\n') {
            continue;
        } else {
            in_string = character == '"';
        }
        out.push(character);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn field_of(body: &str) -> String {
        match NewMessage::from_json(body.as_bytes()) {
            Err(MessageError::Field { field, .. }) => field,
            other => panic!("{body}: {other:?}"),
        }
    }

    #[test]
    fn a_fault_names_its_field() {
        assert_eq!(field_of(r#"{"text":1}"#), "text");
        assert_eq!(field_of(r#"{"text":null}"#), "text");
        assert_eq!(field_of(r#"{"text":"\ud800"}"#), "text");
        assert_eq!(field_of(r#"{"text":"a","colour":"red"}"#), "colour");
        assert_eq!(field_of(r#"{"text":"a","text":"b"}"#), "text");
        assert_eq!(field_of(r"{}"), "text");
        assert_eq!(field_of(r#"["a"]"#), "body");
        assert_eq!(field_of(r#"{"text":"a","type":"ping"}"#), "type");
        assert_eq!(field_of(r#"{"text":"a","type":"hark.edit"}"#), "type");
        assert_eq!(field_of(r#"{"text":"a","type":"Loud"}"#), "type");
        assert_eq!(field_of(r#"{"text":"a","id":"7"}"#), "id");
        assert_eq!(field_of(r#"{"text":"a","from":"me"}"#), "from");
        assert_eq!(field_of(r#"{"text":"a","from":{"verified":true}}"#), "from");
        assert_eq!(field_of(r#"{"text":"a","from":{"name":""}}"#), "from.name");
    }

    #[test]
    fn broken_json_is_unreadable() {
        for bad in [
            &b"{"[..],
            b"",
            b"{\"text\":\"a\"",
            b"{\"text\":\"\xff\"}",
            b"hello",
            b"{\"text\":\"a\n\"}",
        ] {
            let error = NewMessage::from_json(bad).unwrap_err();
            assert!(
                matches!(error, MessageError::Unreadable { .. }),
                "{bad:?}: {error:?}"
            );
        }
    }

    #[test]
    fn data_keeps_its_tokens() {
        let body = r#"{ "data" : { "n" : 123456789012345678901234567890.10 , "s" : "a \" b" , "x":null } }"#;
        let message = NewMessage::from_json(body.as_bytes()).unwrap();
        let data = r#"{"n":123456789012345678901234567890.10,"s":"a \" b","x":null}"#;
        assert_eq!(message.data.as_deref(), Some(data));
        let null = NewMessage::from_json(br#"{"data":null}"#).unwrap();
        assert_eq!(null.data.as_deref(), Some("null"));
    }

    #[test]
    fn the_fingerprint_tells_messages_apart() {
        let from = |json: &str| {
            NewMessage::from_json(json.as_bytes())
                .unwrap()
                .fingerprint()
        };
        let plain = from(r#"{"text":"a"}"#);
        assert_eq!(plain, NewMessage::from_text(b"a").unwrap().fingerprint());
        assert_ne!(plain, from(r#"{"text":"a","data":""}"#));
        assert_ne!(from(r#"{"text":"","data":1}"#), from(r#"{"data":1}"#));
    }

    proptest! {
        #[test]
        fn no_body_makes_it_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = NewMessage::from_json(&body);
            let _ = NewMessage::from_text(&body);
        }
    }
}
