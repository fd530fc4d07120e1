//! Reads a request's body, with its content type, and with limits of size and time.
//! Content types are parsed by hand, because the crate mime refuses a space before `;` (decision 30).

use std::error::Error;
use std::io;

use axum::body::{Body, HttpBody as _};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use http_server::problem::Problem;

use super::problems;
use crate::budget::Held;

/// The kind of a post's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The body is the text.
    Text,
    /// A form, or a text that is only labelled as one, as from `curl -d hello`.
    Form,
    Json,
}

/// Reads the content type. If there is none, the body is text.
pub(crate) fn kind(headers: &HeaderMap) -> Result<Kind, Problem> {
    if headers
        .get(CONTENT_ENCODING)
        .is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        return Err(problems::unsupported_type(
            "send the body without Content-Encoding",
        ));
    }
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return Ok(Kind::Text);
    };
    // Nearly all clients send one of these.
    match value.as_bytes() {
        b"application/json" => return Ok(Kind::Json),
        b"text/plain" => return Ok(Kind::Text),
        b"application/x-www-form-urlencoded" => return Ok(Kind::Form),
        _ => {}
    }
    let unsupported = || {
        let value = String::from_utf8_lossy(value.as_bytes());
        problems::unsupported_type(format!(
            "{value:?} is not supported; send application/json, text/plain or \
             application/x-www-form-urlencoded, in UTF-8"
        ))
    };
    let mut parts = value
        .to_str()
        .map_err(|_not_ascii| unsupported())?
        .split(';');
    let essence = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
    for parameter in parts {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = value.trim().trim_matches('"');
        if name.trim().eq_ignore_ascii_case("charset") && !value.eq_ignore_ascii_case("utf-8") {
            return Err(unsupported());
        }
    }
    match essence.as_str() {
        "application/json" => Ok(Kind::Json),
        "text/plain" | "" => Ok(Kind::Text),
        "application/x-www-form-urlencoded" => Ok(Kind::Form),
        _ => Err(unsupported()),
    }
}

/// Reads the whole body, of at most `limit` bytes, and counts its bytes in `held`; without it they count
/// for nobody. A body that is announced as longer is not read at all.
pub(crate) async fn read(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    mut held: Option<&mut Held>,
) -> Result<Bytes, Problem> {
    if announced(headers).is_some_and(|length| length > limit as u64) {
        return Err(problems::body_too_large(limit));
    }
    let mut body = Limited::new(body, limit);
    // Nearly every body arrives in one piece. Others are copied, because each piece may keep a whole buffer
    // of its connection alive.
    let (mut first, mut whole) = (Bytes::new(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken_off(&*error, limit))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if let Some(held) = held.as_deref_mut() {
            held.grow(data.len()).map_err(problems::too_many_bodies)?;
        }
        if first.is_empty() && whole.is_empty() && body.is_end_stream() {
            first = data;
        } else {
            whole.extend_from_slice(&data);
        }
    }
    Ok(if whole.is_empty() {
        first
    } else {
        whole.freeze()
    })
}

fn broken_off(error: &(dyn Error + Send + Sync + 'static), limit: usize) -> Problem {
    if error.is::<LengthLimitError>() {
        problems::body_too_large(limit)
    } else if took_too_long(error) {
        problems::body_timeout()
    } else {
        // The connection or its chunks are broken, so hardly anyone is left to read this.
        problems::unreadable_body(format!("the body broke off: {error}")).closing()
    }
}

/// The announced length. One that cannot be parsed counts as none; the limit still applies to the bytes.
fn announced(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(CONTENT_LENGTH)
        .map(HeaderValue::to_str)?
        .ok()?
        .parse()
        .ok()
}

fn took_too_long(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let io = error.downcast_ref::<io::Error>();
        if io.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &str) -> Option<Kind> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_str(value).unwrap());
        kind(&headers).ok()
    }

    #[test]
    fn content_types() {
        assert_eq!(kind(&HeaderMap::new()).ok(), Some(Kind::Text));
        for text in [
            "text/plain",
            "Text/Plain; charset=UTF-8",
            "text/plain;charset=\"utf-8\"; format=flowed",
        ] {
            assert_eq!(of(text), Some(Kind::Text), "{text}");
        }
        for form in [
            "application/x-www-form-urlencoded",
            "Application/X-WWW-Form-Urlencoded; charset=utf-8",
        ] {
            assert_eq!(of(form), Some(Kind::Form), "{form}");
        }
        for json in ["application/json", "application/json; charset=utf-8"] {
            assert_eq!(of(json), Some(Kind::Json), "{json}");
        }
        for other in [
            "text/html",
            "image/png",
            "multipart/form-data; boundary=x",
            "application/json; charset=latin1",
            "text/plain; charset=utf-16",
            "text/plain; charset",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn encoded_bodies_are_refused() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert!(kind(&headers).is_err());
    }
}
