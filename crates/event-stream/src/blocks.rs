use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use memchr::{memchr, memchr2};

/// The largest block, in bytes, so that a block without an end does not fill memory.
const LARGEST: usize = 4 << 20;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The fields between two empty lines.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Block<'a> {
    /// The last `event:`; empty if there was none, which means `message`.
    pub name: &'a [u8],
    /// The last `id:`. An id that contains a null byte is ignored.
    pub id: Option<&'a [u8]>,
    /// All `data:` lines, joined by line feeds. A block without data is not an event for a browser,
    /// but its id and retry time still count.
    pub data: Option<Cow<'a, [u8]>>,
    /// The last `retry:`. Anything but a number of milliseconds is ignored.
    pub retry: Option<Duration>,
}

/// The server sent 4 MiB without ending an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge;

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server sent 4 MiB without ending an event")
    }
}

impl std::error::Error for TooLarge {}

/// Splits a stream into blocks. It copies only blocks that arrive in pieces.
#[derive(Debug, Default)]
pub struct Blocks {
    unfinished: Vec<u8>,
    /// Whether the first block has ended. A byte order mark may precede it.
    begun: bool,
}

impl Blocks {
    /// Takes the next piece of the stream and calls `show` for each block that it completes, except
    /// blocks with only comments.
    ///
    /// # Errors
    /// When a block is larger than 4 MiB. The rest of the stream cannot be read.
    pub fn feed(&mut self, piece: &[u8], show: impl FnMut(Block<'_>)) -> Result<(), TooLarge> {
        if self.unfinished.is_empty() {
            let used = self.blocks(piece, show);
            self.unfinished.extend_from_slice(&piece[used..]);
        } else {
            self.unfinished.extend_from_slice(piece);
            // A piece without a line end cannot end a block.
            if memchr2(b'\n', b'\r', piece).is_some() {
                let mut unfinished = std::mem::take(&mut self.unfinished);
                let used = self.blocks(&unfinished, show);
                unfinished.drain(..used);
                // Keep no empty buffers: there may be ten thousand streams.
                if !unfinished.is_empty() {
                    self.unfinished = unfinished;
                }
            }
        }
        if self.unfinished.len() > LARGEST {
            return Err(TooLarge);
        }
        Ok(())
    }

    /// Calls `show` for each finished block; returns how many bytes they take.
    fn blocks(&mut self, bytes: &[u8], mut show: impl FnMut(Block<'_>)) -> usize {
        let (mut used, mut position) = (0, 0);
        if !self.begun && bytes.starts_with(BYTE_ORDER_MARK) {
            position = BYTE_ORDER_MARK.len();
        }
        let (mut block, mut has_fields) = (Block::default(), false);
        // A line ends with CR LF, LF or CR. If a piece ends between CR and LF, the LF either becomes an
        // empty line between two blocks, which does nothing, or follows its CR in the unfinished bytes.
        while let Some(length) = memchr2(b'\n', b'\r', &bytes[position..]) {
            let end = position + length;
            let line = &bytes[position..end];
            let is_crlf = bytes[end..].starts_with(b"\r\n");
            position = end + if is_crlf { 2 } else { 1 };
            if !line.is_empty() {
                has_fields |= block.take(line);
                continue;
            }
            let finished = std::mem::take(&mut block);
            if std::mem::take(&mut has_fields) {
                show(finished);
            }
            used = position;
        }
        self.begun |= used > 0;
        used
    }
}

impl<'a> Block<'a> {
    /// Takes a line; false if it is a comment.
    fn take(&mut self, line: &'a [u8]) -> bool {
        // Nearly all lines are data: recognise them without a search.
        if let Some(value) = line.strip_prefix(b"data:") {
            self.take_data(value);
            return true;
        }
        if let Some(value) = line.strip_prefix(b"id:") {
            self.take_id(value);
            return true;
        }
        let colon = memchr(b':', line).unwrap_or(line.len());
        let (field, value) = (&line[..colon], line.get(colon + 1..).unwrap_or_default());
        match field {
            b"data" => self.take_data(value),
            b"event" => self.name = unspaced(value),
            b"id" => self.take_id(value),
            b"retry" if unspaced(value).iter().all(u8::is_ascii_digit) => {
                let number = str::from_utf8(unspaced(value))
                    .ok()
                    .and_then(|text| text.parse().ok());
                self.retry = number.map(Duration::from_millis).or(self.retry);
            }
            _ => {}
        }
        !field.is_empty()
    }

    fn take_data(&mut self, value: &'a [u8]) {
        let value = unspaced(value);
        match &mut self.data {
            None => self.data = Some(Cow::Borrowed(value)),
            Some(data) => {
                let data = data.to_mut();
                data.push(b'\n');
                data.extend_from_slice(value);
            }
        }
    }

    fn take_id(&mut self, value: &'a [u8]) {
        if !value.contains(&0) {
            self.id = Some(unspaced(value));
        }
    }
}

/// Removes the space after the colon, which is not part of the value.
fn unspaced(value: &[u8]) -> &[u8] {
    value.strip_prefix(b" ").unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = "\u{feff}retry: 1\n\nevent: ready\r\nid: 1\r\ndata: {}\r\n\r\n\
                        : comment\n\ndata:a\ndata: b\n\nevent: empty\rid:\r\r\ndata: c\n\ndata: unfinished\n";

    fn show(block: &Block<'_>) -> String {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let (id, data) = (block.id.map(text), block.data.as_deref().map(text));
        format!("{} {id:?} {data:?} {:?}", text(block.name), block.retry)
    }

    fn read(pieces: &[&[u8]]) -> Vec<String> {
        let (mut blocks, mut read) = (Blocks::default(), Vec::new());
        for piece in pieces {
            let fed = blocks.feed(piece, |block| read.push(show(&block)));
            fed.unwrap();
        }
        read
    }

    #[test]
    fn blocks_are_the_same_however_the_stream_is_cut() {
        let expected = [
            " None None Some(1ms)",
            "ready Some(\"1\") Some(\"{}\") None",
            " None Some(\"a\\nb\") None",
            "empty Some(\"\") None None",
            " None Some(\"c\") None",
        ];
        assert_eq!(read(&[BODY.as_bytes()]), expected);
        for cut in 0..BODY.len() {
            let (before, after) = BODY.as_bytes().split_at(cut);
            assert_eq!(read(&[before, b"", after]), expected, "cut at {cut}");
        }
        let bytes: Vec<_> = BODY.as_bytes().chunks(1).collect();
        assert_eq!(read(&bytes), expected);
    }

    #[test]
    fn a_block_without_an_end_is_refused() {
        let mut blocks = Blocks::default();
        let piece = vec![b'x'; LARGEST];
        assert_eq!(blocks.feed(&piece, |_| ()), Ok(()));
        assert_eq!(blocks.feed(b"x", |_| ()), Err(TooLarge));
    }
}
