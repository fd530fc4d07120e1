use std::borrow::Cow;

use memchr::memchr;

/// An event may be so large; one without an end is not collected for ever.
const LARGEST: usize = 4 << 20;

/// One server-sent event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Event<'a> {
    /// Empty when the event has no `event:` field.
    pub(crate) name: &'a [u8],
    /// Empty when the event has no `id:` field.
    pub(crate) id: &'a [u8],
    pub(crate) data: Cow<'a, [u8]>,
}

/// The server sent 4 MiB without the end of an event.
#[derive(Debug)]
pub(crate) struct TooLarge;

/// Splits a body into events, and copies only those that arrive in pieces.
///
/// Lines end with LF or CR LF; that CR alone ends one too (WHATWG HTML 9.2.5)
/// is left out, as no server sends it.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    unfinished: Vec<u8>,
}

impl Parser {
    /// Takes the next piece of the body and shows each event that it ends.
    pub(crate) fn feed(
        &mut self,
        piece: &[u8],
        event: impl FnMut(Event<'_>),
    ) -> Result<(), TooLarge> {
        if self.unfinished.is_empty() {
            let used = events(piece, event);
            self.unfinished.extend_from_slice(&piece[used..]);
        } else {
            self.unfinished.extend_from_slice(piece);
            let used = events(&self.unfinished, event);
            self.unfinished.drain(..used);
        }
        if self.unfinished.is_empty() {
            // Ten thousand streams: a buffer for each would be the load generator's own noise.
            self.unfinished = Vec::new();
        }
        if self.unfinished.len() > LARGEST {
            return Err(TooLarge);
        }
        Ok(())
    }
}

/// Shows each finished event; returns how many bytes they take.
fn events(bytes: &[u8], mut show: impl FnMut(Event<'_>)) -> usize {
    let (mut used, mut position) = (0, 0);
    let (mut name, mut id): (&[u8], &[u8]) = (b"", b"");
    let mut data: Option<Cow<'_, [u8]>> = None;
    while let Some(length) = memchr(b'\n', &bytes[position..]) {
        let line = &bytes[position..position + length];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        position += length + 1;
        if let Some(value) = line.strip_prefix(b"data:") {
            let value = value.strip_prefix(b" ").unwrap_or(value);
            match &mut data {
                None => data = Some(Cow::Borrowed(value)),
                Some(data) => {
                    data.to_mut().push(b'\n');
                    data.to_mut().extend_from_slice(value);
                }
            }
        } else if let Some(value) = line.strip_prefix(b"event:") {
            name = value.strip_prefix(b" ").unwrap_or(value);
        } else if let Some(value) = line.strip_prefix(b"id:") {
            id = value.strip_prefix(b" ").unwrap_or(value);
        } else if line.is_empty() {
            if let Some(data) = data.take() {
                show(Event { name, id, data });
            }
            (name, id) = (b"", b"");
            used = position;
        }
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = "retry: 1\n\nevent: ready\r\nid: 1\r\ndata: {}\r\n\r\n\
                        : comment\n\ndata:a\ndata: b\n\nevent: empty\n\ndata: c\n\n";

    fn parsed(pieces: &[&[u8]]) -> Vec<(String, String, String)> {
        let mut parser = Parser::default();
        let mut parsed = Vec::new();
        for piece in pieces {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let fed = parser.feed(piece, |event| {
                parsed.push((text(event.name), text(event.id), text(&event.data)));
            });
            fed.unwrap();
        }
        parsed
    }

    #[test]
    fn events_are_the_same_however_the_body_is_cut() {
        let expected = [("ready", "1", "{}"), ("", "", "a\nb"), ("", "", "c")]
            .map(|(name, id, data)| (name.to_owned(), id.to_owned(), data.to_owned()));
        assert_eq!(parsed(&[BODY.as_bytes()]), expected);
        for cut in 0..BODY.len() {
            let (before, after) = BODY.as_bytes().split_at(cut);
            assert_eq!(parsed(&[before, after]), expected, "cut at {cut}");
        }
        let bytes: Vec<_> = BODY.as_bytes().chunks(1).collect();
        assert_eq!(parsed(&bytes), expected);
    }

    #[test]
    fn an_event_without_an_end_is_refused() {
        let mut parser = Parser::default();
        let piece = vec![b'x'; LARGEST];
        assert!(parser.feed(&piece, |_| ()).is_ok());
        assert!(parser.feed(b"x", |_| ()).is_err());
    }
}
