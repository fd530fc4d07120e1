//! Messages from web forms, and how a real form is told from plain text that is only labelled as one.

use serde_json::value::RawValue;

use super::{
    EventType, MessageError, NewMessage, Sender, check_lengths, client_id, without_white_space,
};
use crate::explain_json;

/// The fields that a form may have, by the names used in errors.
const FIELDS: [&str; 6] = ["text", "data", "type", "id", "from.id", "from.name"];

impl NewMessage {
    /// Reads a body of the type `application/x-www-form-urlencoded`. HTML forms and
    /// `curl --data-urlencode text=…` send it, and `curl -d` labels every text with it.
    ///
    /// The body is a form (WHATWG URL §5.1) if it consists only of fields `name=value` with the names
    /// `text`, `data` (JSON), `type`, `id`, `from.id` and `from.name`; `text` must be present and no
    /// name may appear twice. Every `%` must begin an encoded byte, and the result must be UTF-8. Any
    /// other body is taken as the text itself.
    ///
    /// # Errors
    /// As [`from_text`](Self::from_text), or when a field of the form is not acceptable.
    pub fn from_form(body: &[u8]) -> Result<Self, MessageError> {
        match Form::read(body) {
            Some(form) => form.message(),
            None => Self::from_text(body),
        }
    }
}

/// The values of [`FIELDS`].
struct Form([Option<String>; FIELDS.len()]);

impl Form {
    fn read(body: &[u8]) -> Option<Self> {
        // Most bodies are not forms. This finds out without decoding anything.
        let mut pairs = body.split(|&byte| byte == b'&');
        if !pairs.any(|pair| pair.starts_with(b"text=")) {
            return None;
        }
        let mut values = [const { None }; FIELDS.len()];
        for pair in body.split(|&byte| byte == b'&') {
            let equals = pair.iter().position(|&byte| byte == b'=')?;
            let name = decoded(&pair[..equals])?;
            let place = FIELDS.iter().position(|field| *field == name)?;
            let value = decoded(&pair[equals + 1..])?;
            if values[place].replace(value).is_some() {
                return None;
            }
        }
        Some(Self(values))
    }

    fn message(self) -> Result<NewMessage, MessageError> {
        let [text, data, event_type, id, from_id, from_name] = self.0;
        if data.is_none() && text.as_deref() == Some("") {
            return Err(MessageError::field("text", "the text is empty"));
        }
        let from = if from_id.is_some() || from_name.is_some() {
            let from = Sender {
                id: from_id,
                name: from_name,
            };
            check_lengths(&from)?;
            Some(from)
        } else {
            None
        };
        Ok(NewMessage {
            text,
            data: data.as_deref().map(json).transpose()?,
            event_type: match event_type {
                Some(name) => EventType::new(&name)?,
                None => EventType::default(),
            },
            id: id.as_deref().map(client_id).transpose()?,
            from,
        })
    }
}

fn json(data: &str) -> Result<String, MessageError> {
    let raw: &RawValue = serde_json::from_str(data).map_err(|error| {
        let why = explain_json(data, &error);
        MessageError::field("data", format!("in a form it must be JSON: {why}"))
    })?;
    Ok(without_white_space(raw.get()))
}

/// Decodes one part: `+` is a space and `%41` is `A`. `None` if it is not encoded in this way.
fn decoded(part: &[u8]) -> Option<String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.iter();
    while let Some(&byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => hex(*rest.next()?)? << 4 | hex(*rest.next()?)?,
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fn hex(digit: u8) -> Option<u8> {
    // At most 15.
    char::from(digit).to_digit(16)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(body: &str) -> NewMessage {
        NewMessage::from_form(body.as_bytes()).unwrap()
    }

    #[test]
    fn a_form_with_a_text_is_taken_by_its_fields() {
        for (body, text) in [
            ("text=hello+world", "hello world"),
            ("text=hello%20w%C3%B6rld%21", "hello wörld!"),
            // Not encoded at all, as `curl -d 'text=grüße dich'` sends it.
            ("text=grüße dich", "grüße dich"),
            ("text=1+1", "1 1"),
            ("text=a=b", "a=b"),
        ] {
            assert_eq!(form(body), NewMessage::text(text), "{body}");
        }
        let id = "0193e5a0-0000-7000-8000-000000000001";
        let all =
            format!("from.name=Ann&text=hi&type=note&id={id}&from.id=7&data=%7B%22n%22%3A+1.50%7D");
        let json = format!(
            r#"{{"text":"hi","type":"note","id":"{id}","from":{{"id":"7","name":"Ann"}},"data":{{"n":1.50}}}}"#
        );
        assert_eq!(form(&all), NewMessage::from_json(json.as_bytes()).unwrap());
    }

    #[test]
    fn what_only_claims_to_be_a_form_is_the_text() {
        for body in [
            "hello",
            "text",
            "a=b",
            "a=b&c+%20d",
            "id=7",
            "data=1",
            "text=a&b",
            "text=a&b=c",
            "text=a&text=b",
            "text=50%",
            "text=50%zz",
            "text=%ff",
            "text=a&",
            "context=hello",
            "Text=hello",
        ] {
            assert_eq!(form(body), NewMessage::text(body), "{body}");
        }
        assert!(NewMessage::from_form(b"").is_err());
        assert!(NewMessage::from_form(b"text=\xff").is_err());
    }

    #[test]
    fn a_fault_of_a_form_names_its_field() {
        let long = format!("text=a&from.name={}", "x".repeat(129));
        for (body, at) in [
            ("text=", "text"),
            ("text=a&id=7", "id"),
            ("text=a&type=ping", "type"),
            ("text=a&data={", "data"),
            ("text=a&from.id=", "from.id"),
            (&long, "from.name"),
        ] {
            match NewMessage::from_form(body.as_bytes()) {
                Err(MessageError::Field { field, .. }) => assert_eq!(field, at, "{body}"),
                other => panic!("{body}: {other:?}"),
            }
        }
    }
}
