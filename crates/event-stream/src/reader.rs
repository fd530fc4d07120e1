use std::time::Duration;

use crate::{Blocks, TooLarge};

/// One event of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// This event's own `id:`, if it has one.
    pub id: Option<String>,
    /// The `event:`; `message` if there was none.
    pub name: String,
    /// The `data:` lines, joined by line feeds.
    pub data: String,
}

/// Reads a stream as an `EventSource` does: its events, and what to send on the next connection.
#[derive(Debug, Default)]
pub struct Reader {
    blocks: Blocks,
    cursor: Option<String>,
    retry: Option<Duration>,
    hollow: bool,
}

impl Reader {
    /// Takes the next bytes of the stream and returns the events that they complete. Bytes that are not
    /// UTF-8 are replaced, as in browsers.
    ///
    /// # Errors
    /// When a block is larger than 4 MiB: Hark sends no such stream.
    pub fn read(&mut self, bytes: &[u8]) -> Result<Vec<Event>, TooLarge> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let Self {
            blocks,
            cursor,
            retry,
            hollow,
        } = self;
        let mut events = Vec::new();
        blocks.feed(bytes, |block| {
            let id = block.id.map(text);
            if id.is_some() {
                cursor.clone_from(&id);
            }
            *retry = block.retry.or(*retry);
            let Some(data) = block.data.as_deref() else {
                *hollow = true;
                return;
            };
            let name = match block.name {
                b"" => "message".to_owned(),
                name => text(name),
            };
            let data = text(data);
            events.push(Event { id, name, data });
        })?;
        Ok(events)
    }

    /// To be called when the connection broke: forgets the unfinished event.
    pub fn restart(&mut self) {
        self.blocks = Blocks::default();
    }

    /// The last `id:`, to be sent as `Last-Event-ID`.
    #[must_use]
    pub fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// The last `retry:`: how long to wait before the next connection.
    #[must_use]
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// Whether there was a block with fields but no data. Browsers ignore such a block; several other
    /// clients take it for an empty event.
    #[must_use]
    pub fn had_hollow_block(&self) -> bool {
        self.hollow
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(id: Option<&str>, name: &str, data: &str) -> Event {
        Event {
            id: id.map(str::to_owned),
            name: name.to_owned(),
            data: data.to_owned(),
        }
    }

    #[test]
    fn the_examples_of_the_standard() {
        let mut reader = Reader::default();
        let stream = ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n\
                      data: YHOO\ndata: +2\ndata: 10\n\ndata\n\ndata\ndata\n\ndata:";
        assert_eq!(
            reader.read(stream.as_bytes()).unwrap(),
            [
                event(Some("1"), "message", "first event"),
                event(Some(""), "message", "second event"),
                event(None, "message", " third event"),
                event(None, "message", "YHOO\n+2\n10"),
                event(None, "message", ""),
                event(None, "message", "\n"),
            ]
        );
        assert!(!reader.had_hollow_block(), "a comment is not a field");
    }

    #[test]
    fn an_id_without_data_moves_the_cursor_and_retry_is_digits_only() {
        let mut reader = Reader::default();
        let stream = "\u{feff}id: c\nretry: 250\n\nretry: 1s\nid: a\0b\n\nretry:\n\n";
        assert_eq!(reader.read(stream.as_bytes()), Ok(Vec::new()));
        assert_eq!(reader.cursor(), Some("c"));
        assert_eq!(reader.retry(), Some(Duration::from_millis(250)));
        assert!(reader.had_hollow_block());
    }

    #[test]
    fn a_block_without_data_is_remembered() {
        for (blocks, hollow) in [
            (
                "retry: 5\nevent: ping\ndata: {}\n\n: a comment\n\n\n",
                false,
            ),
            ("data: 1\n\nretry: 5\n\n", true),
            ("something: else\n\n", true),
        ] {
            let mut reader = Reader::default();
            reader.read(blocks.as_bytes()).unwrap();
            reader.restart();
            assert_eq!(reader.had_hollow_block(), hollow, "{blocks}");
        }
    }

    #[test]
    fn a_broken_connection_leaves_the_cursor_and_no_half_event() {
        let mut reader = Reader::default();
        reader
            .read(b"id: a\nretry: 5\ndata: 1\n\nid: b\ndata: 2\n")
            .unwrap();
        reader.restart();
        assert_eq!(reader.cursor(), Some("a"));
        assert_eq!(reader.retry(), Some(Duration::from_millis(5)));
        assert_eq!(
            reader.read(b"\ndata: 3\n\n"),
            Ok(vec![event(None, "message", "3")])
        );
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
            let (mut reader, mut events, mut rest) = (Reader::default(), Vec::new(), stream.as_bytes());
            for length in cut.into_iter().cycle() {
                if rest.is_empty() { break; }
                let (chunk, after) = rest.split_at(length.min(rest.len()));
                events.extend(reader.read(chunk).unwrap());
                rest = after;
            }
            prop_assert_eq!(events, [event(Some("7"), "x", "a"), event(None, "message", "ü")]);
        }
    }
}
