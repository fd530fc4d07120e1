//! Reads an event stream (WHATWG HTML §9.2.6), as far as `hark listen` needs it.

use std::time::Duration;

/// One event of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct StreamEvent {
    /// `message` if the stream named none.
    pub(crate) name: String,
    pub(crate) data: String,
}

/// Takes the bytes of a stream and gives its events; keeps the cursor and the time to wait before
/// the next connection.
#[derive(Debug, Default)]
pub(crate) struct EventStream {
    line: Vec<u8>,
    after_cr: bool,
    name: String,
    data: Option<String>,
    id: Option<String>,
    /// The last `id:`.
    pub(crate) cursor: Option<String>,
    /// The last `retry:`.
    pub(crate) retry: Option<Duration>,
    /// Whether there was a block of fields without data, of which browsers make nothing, and several
    /// other clients an empty event.
    pub(crate) hollow: bool,
    fields: bool,
}

/// The longest line that is taken; a longer one is no stream of ours.
const LONGEST_LINE: usize = 4 * 1024 * 1024;

impl EventStream {
    /// The connection broke: what was not finished is forgotten.
    pub(crate) fn restart(&mut self) {
        let Self {
            cursor,
            retry,
            hollow,
            ..
        } = std::mem::take(self);
        *self = Self {
            cursor,
            retry,
            hollow,
            ..Self::default()
        };
    }

    /// Takes what came and gives the events that it completes.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Vec<StreamEvent> {
        let mut events = Vec::new();
        for &byte in bytes {
            let second_of_crlf = std::mem::take(&mut self.after_cr) && byte == b'\n';
            if second_of_crlf {
                continue;
            }
            if matches!(byte, b'\r' | b'\n') {
                self.after_cr = byte == b'\r';
                let line = std::mem::take(&mut self.line);
                events.extend(self.end_line(&String::from_utf8_lossy(&line)));
            } else if self.line.len() < LONGEST_LINE {
                self.line.push(byte);
            }
        }
        events
    }

    fn end_line(&mut self, line: &str) -> Option<StreamEvent> {
        if line.is_empty() {
            return self.dispatch();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        // A comment has no name.
        self.fields |= !field.is_empty();
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            "retry" => {
                // What is no number is ignored (HTML Living Standard, section 9.2.6).
                if let Ok(milliseconds) = value.parse() {
                    self.retry = Some(Duration::from_millis(milliseconds));
                }
            }
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<StreamEvent> {
        if self.id.is_some() {
            self.cursor = self.id.take();
        }
        let name = std::mem::take(&mut self.name);
        self.hollow |= std::mem::take(&mut self.fields) && self.data.is_none();
        let data = self.data.take()?;
        let name = if name.is_empty() {
            "message".to_owned()
        } else {
            name
        };
        Some(StreamEvent { name, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STREAM: &str =
        "retry: 5\n\n: hello\nid: a\ndata: 1\n\r\nevent: gap\rdata\r\ndata:x\r\n\r\nid: b\n\n";

    proptest! {
        #[test]
        fn it_does_not_matter_how_the_bytes_come(cuts in prop::collection::vec(0..STREAM.len(), 0..20)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let mut stream = EventStream::default();
            let mut events = Vec::new();
            let mut from = 0;
            for to in cuts.into_iter().chain([STREAM.len()]) {
                events.extend(stream.read(&STREAM.as_bytes()[from..to]));
                from = to;
            }
            let event = |name: &str, data: &str| StreamEvent { name: name.into(), data: data.into() };
            prop_assert_eq!(events, vec![event("message", "1"), event("gap", "\nx")]);
            prop_assert_eq!(stream.cursor.as_deref(), Some("b"));
            prop_assert_eq!(stream.retry, Some(Duration::from_millis(5)));
        }
    }

    #[test]
    fn a_block_without_data_is_remembered() {
        for (blocks, hollow) in [
            (
                "retry: 5\nevent: ping\ndata: {}\n\n: a comment\n\n\n",
                false,
            ),
            ("data: 1\n\nretry: 5\n\n", true),
        ] {
            let mut stream = EventStream::default();
            stream.read(blocks.as_bytes());
            stream.restart();
            assert_eq!(stream.hollow, hollow, "{blocks}");
        }
    }
}
