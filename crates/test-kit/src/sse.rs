use std::time::Duration;

/// One dispatched event of a stream (WHATWG HTML §9.2.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The `id:` field of this very block, if it had one.
    pub id: Option<String>,
    /// The `event:` field; `message` when there was none.
    pub event: String,
    /// The `data:` lines, joined by line feeds.
    pub data: String,
}

impl Event {
    /// The data as JSON.
    ///
    /// # Panics
    /// When it is not JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.data)
            .unwrap_or_else(|error| panic!("data of {self:?} is not JSON: {error}"))
    }
}

/// Interprets an event stream as WHATWG HTML §9.2.6 says, from chunks cut anywhere.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    after_cr: bool,
    past_first_line: bool,
    data: String,
    event: String,
    id: Option<String>,
    last_event_id: String,
    retry: Option<Duration>,
    fields: bool,
    hollow: bool,
}

impl Parser {
    /// Takes the next bytes of the stream and returns the events that they complete.
    pub fn feed(&mut self, chunk: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        let mut rest = chunk;
        while !rest.is_empty() {
            // A line ends with CR LF, LF or CR.
            if std::mem::take(&mut self.after_cr) {
                rest = rest.strip_prefix(b"\n").unwrap_or(rest);
            }
            let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                self.line.extend(rest);
                break;
            };
            self.line.extend(&rest[..end]);
            self.after_cr = rest[end] == b'\r';
            rest = &rest[end + 1..];
            events.extend(self.end_line());
        }
        events
    }

    /// The cursor with which a browser would reconnect; empty when there was none.
    #[must_use]
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    /// The newest `retry:` of the stream.
    #[must_use]
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// Whether there was a block that has fields and no data. A browser makes nothing of it;
    /// several other clients hand out an event without data.
    #[must_use]
    pub fn had_hollow_block(&self) -> bool {
        self.hollow
    }

    /// Forgets the unfinished event, as a browser does when a stream ends, but
    /// keeps the cursor and the retry time.
    pub fn reset(&mut self) {
        *self = Self {
            last_event_id: std::mem::take(&mut self.last_event_id),
            retry: self.retry,
            hollow: self.hollow,
            ..Self::default()
        };
    }

    fn end_line(&mut self) -> Option<Event> {
        let line = std::mem::take(&mut self.line);
        let decoded = String::from_utf8_lossy(&line);
        let mut line = decoded.as_ref();
        if !std::mem::replace(&mut self.past_first_line, true) {
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        if line.is_empty() {
            return self.dispatch();
        }
        // A comment has an empty field name, which falls through below.
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        self.fields |= !field.is_empty();
        match field {
            "event" => value.clone_into(&mut self.event),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => {
                self.id = Some(value.to_owned());
                value.clone_into(&mut self.last_event_id);
            }
            "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.retry = value.parse().ok().map(Duration::from_millis);
            }
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<Event> {
        let id = self.id.take();
        let event = std::mem::take(&mut self.event);
        let mut data = std::mem::take(&mut self.data);
        self.hollow |= std::mem::take(&mut self.fields) && data.is_empty();
        // A block without data is not dispatched; its id still counts.
        data.pop()?;
        let event = if event.is_empty() {
            "message".to_owned()
        } else {
            event
        };
        Some(Event { id, event, data })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(id: Option<&str>, event: &str, data: &str) -> Event {
        Event {
            id: id.map(str::to_owned),
            event: event.to_owned(),
            data: data.to_owned(),
        }
    }

    #[test]
    fn the_examples_of_the_standard() {
        let mut parser = Parser::default();
        let stream = ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n\
                      data: YHOO\ndata: +2\ndata: 10\n\ndata\n\ndata\ndata\n\ndata:";
        let events = parser.feed(stream.as_bytes());
        assert_eq!(
            events,
            [
                event(Some("1"), "message", "first event"),
                event(Some(""), "message", "second event"),
                event(None, "message", " third event"),
                event(None, "message", "YHOO\n+2\n10"),
                event(None, "message", ""),
                event(None, "message", "\n"),
            ]
        );
        assert!(!parser.had_hollow_block(), "a comment is no field");
    }

    #[test]
    fn an_id_without_data_moves_the_cursor_and_retry_is_digits_only() {
        let mut parser = Parser::default();
        assert!(
            parser
                .feed("\u{feff}id: c\nretry: 250\n\nretry: 1s\nid: a\0b\n\n".as_bytes())
                .is_empty()
        );
        assert_eq!(parser.last_event_id(), "c");
        assert_eq!(parser.retry(), Some(Duration::from_millis(250)));
        assert!(parser.had_hollow_block());
    }

    proptest! {
        #[test]
        fn chunks_cut_anywhere_and_any_line_end_mean_the_same(
            ends in prop::collection::vec(prop::sample::select(vec!["\n", "\r", "\r\n"]), 7),
            cut in prop::collection::vec(1usize..9, 1..20),
        ) {
            let lines = ["event: x", "data: a", "id: 7", "", "data: ü", ":", ""];
            let stream: String = lines.iter().zip(&ends).flat_map(|(line, end)| [*line, *end]).collect();
            // A CR before an empty line that ends with LF would be one CR LF.
            prop_assume!(!stream.contains("\r\n\n") && !ends.windows(2).any(|pair| pair == ["\r", "\n"]));
            let (mut parser, mut events, mut rest) = (Parser::default(), Vec::new(), stream.as_bytes());
            for length in cut.into_iter().cycle() {
                if rest.is_empty() { break; }
                let (chunk, after) = rest.split_at(length.min(rest.len()));
                events.extend(parser.feed(chunk));
                rest = after;
            }
            prop_assert_eq!(events, [event(Some("7"), "x", "a"), event(None, "message", "ü")]);
        }
    }
}
