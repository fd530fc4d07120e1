use memchr::{memchr, memmem};

/// A response head may be so large.
const LARGEST_HEAD: usize = 64 << 10;

/// What is not a response that the load generator understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadResponse(pub(crate) &'static str);

/// Reads HTTP/1.1 responses from pieces as they arrive: the head, then a body
/// that is chunked, of a known length, or ends with the connection.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    state: State,
    status: u16,
}

#[derive(Debug)]
enum State {
    /// The head as far as it has arrived.
    Head(Vec<u8>),
    Length(u64),
    UntilClose,
    /// In the line with the size of the next chunk.
    ChunkSize(ChunkSize),
    Chunk(u64),
    /// So many bytes of the line end behind a chunk are missing.
    ChunkEnd(u8),
    /// In the trailer, in a line of so many bytes.
    Trailer(usize),
    Done,
}

#[derive(Debug, Default)]
struct ChunkSize {
    value: u64,
    digits: u8,
    extension: bool,
}

impl Default for State {
    fn default() -> Self {
        Self::Head(Vec::new())
    }
}

impl Reader {
    /// The status, once the head has arrived.
    pub(crate) fn status(&self) -> Option<u16> {
        (!matches!(self.state, State::Head(_))).then_some(self.status)
    }

    /// Whether the whole response has arrived.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Takes the next piece, and shows the parts of the body in it. A piece that
    /// goes beyond the response is an error: nothing here pipelines.
    pub(crate) fn feed(
        &mut self,
        mut piece: &[u8],
        mut body: impl FnMut(&[u8]),
    ) -> Result<(), BadResponse> {
        while !piece.is_empty() {
            match &mut self.state {
                State::Head(head) => {
                    let before = head.len();
                    head.extend_from_slice(piece);
                    let Some(end) = memmem::find(head, b"\r\n\r\n") else {
                        if head.len() > LARGEST_HEAD {
                            return Err(BadResponse("a response head over 64 KiB"));
                        }
                        return Ok(());
                    };
                    piece = &piece[end + 4 - before..];
                    let head = std::mem::take(head);
                    (self.status, self.state) = read_head(&head[..end])?;
                }
                State::Length(rest) | State::Chunk(rest) => {
                    let length = usize::try_from(*rest).unwrap_or(usize::MAX);
                    let (part, after) = piece.split_at(length.min(piece.len()));
                    body(part);
                    piece = after;
                    *rest -= part.len() as u64;
                    if *rest == 0 {
                        let chunk = matches!(self.state, State::Chunk(_));
                        self.state = if chunk {
                            State::ChunkEnd(2)
                        } else {
                            State::Done
                        };
                    }
                }
                State::UntilClose => {
                    body(piece);
                    return Ok(());
                }
                State::ChunkSize(size) => {
                    let byte = piece[0];
                    piece = &piece[1..];
                    if byte == b'\n' {
                        self.state = size.next()?;
                    } else {
                        size.take(byte)?;
                    }
                }
                State::ChunkEnd(rest) => {
                    if piece[0] != [b'\n', b'\r'][usize::from(*rest) - 1] {
                        return Err(BadResponse("a chunk that is longer than its size"));
                    }
                    piece = &piece[1..];
                    *rest -= 1;
                    if *rest == 0 {
                        self.state = State::ChunkSize(ChunkSize::default());
                    }
                }
                State::Trailer(length) => {
                    let Some(end) = memchr(b'\n', piece) else {
                        *length += piece.len();
                        return Ok(());
                    };
                    let empty = *length + end <= 1;
                    piece = &piece[end + 1..];
                    self.state = if empty {
                        State::Done
                    } else {
                        State::Trailer(0)
                    };
                }
                State::Done => return Err(BadResponse("more than was asked for")),
            }
        }
        Ok(())
    }
}

impl ChunkSize {
    fn take(&mut self, byte: u8) -> Result<(), BadResponse> {
        let digit = char::from(byte).to_digit(16);
        if let (false, Some(digit)) = (self.extension, digit) {
            self.digits += 1;
            if self.digits > 15 {
                return Err(BadResponse("a chunk of over 2^60 bytes"));
            }
            self.value = self.value << 4 | u64::from(digit);
        } else if self.digits == 0 {
            return Err(BadResponse("a chunk without a size"));
        } else {
            self.extension = true;
        }
        Ok(())
    }

    fn next(&self) -> Result<State, BadResponse> {
        match (self.digits, self.value) {
            (0, _) => Err(BadResponse("a chunk without a size")),
            (_, 0) => Ok(State::Trailer(0)),
            (_, size) => Ok(State::Chunk(size)),
        }
    }
}

fn read_head(head: &[u8]) -> Result<(u16, State), BadResponse> {
    let head = std::str::from_utf8(head).map_err(|_| BadResponse("a head that is not text"))?;
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1."))
        .and_then(|line| line.split(' ').nth(1)?.parse().ok())
        .ok_or(BadResponse("no HTTP/1 status line"))?;
    let mut state = State::UntilClose;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("transfer-encoding") {
            if !value.eq_ignore_ascii_case("chunked") {
                return Err(BadResponse("an unknown transfer encoding"));
            }
            return Ok((status, State::ChunkSize(ChunkSize::default())));
        }
        if name.eq_ignore_ascii_case("content-length") {
            let length = value
                .parse()
                .map_err(|_| BadResponse("a bad Content-Length"))?;
            state = State::Length(length);
        }
    }
    if matches!(state, State::Length(0)) || status == 204 || status == 304 {
        state = State::Done;
    }
    Ok((status, state))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> Result<(Option<u16>, String, bool), BadResponse> {
        let mut reader = Reader::default();
        let mut body = Vec::new();
        for piece in pieces {
            reader.feed(piece, |part| body.extend_from_slice(part))?;
        }
        let body = String::from_utf8(body).unwrap();
        Ok((reader.status(), body, reader.is_done()))
    }

    #[test]
    fn every_framing_is_read_however_it_is_cut() {
        for (response, expected) in [
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0a\r\n0123456789\r\n0\r\nt: 1\r\n\r\n",
                (Some(200), "abc0123456789", true),
            ),
            (
                "HTTP/1.1 201 Created\r\ncontent-length: 5\r\n\r\nhello",
                (Some(201), "hello", true),
            ),
            ("HTTP/1.0 200 OK\r\n\r\nhello", (Some(200), "hello", false)),
            ("HTTP/1.1 204 No Content\r\n\r\n", (Some(204), "", true)),
            ("HTTP/1.1 200 OK\r\nA: b", (None, "", false)),
        ] {
            let (status, body, done) = expected;
            let expected = Ok((status, body.to_owned(), done));
            for cut in 0..response.len() {
                let (before, after) = response.as_bytes().split_at(cut);
                assert_eq!(
                    read(&[before, after]),
                    expected,
                    "{response:?} cut at {cut}"
                );
            }
            let bytes: Vec<_> = response.as_bytes().chunks(1).collect();
            assert_eq!(read(&bytes), expected);
        }
    }

    #[test]
    fn what_is_not_a_response_is_refused() {
        for bad in [
            "SSH-2.0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1111111111111111\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
        ] {
            assert!(read(&[bad.as_bytes()]).is_err(), "{bad:?}");
        }
    }
}
