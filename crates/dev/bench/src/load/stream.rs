use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

use event_stream::{Block, Blocks};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::checks::Received;
use crate::response::Reader;

/// One listener.
pub(super) struct Stream {
    pub(super) connection: Connection,
    pub(super) channel: usize,
    pub(super) received: Received,
    pub(super) has_begun: bool,
    /// When it began to connect.
    pub(super) connected: Instant,
}

/// The socket of a listener, and what is read from it.
pub(super) struct Connection {
    /// `None` once it has ended.
    socket: Option<TcpStream>,
    /// What of the request is not written yet.
    request: Vec<u8>,
    /// Bytes.
    received: u64,
    reader: Reader,
    parser: Blocks,
}

/// What happened on a stream beside events.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Nothing,
    /// The head of a response with status 200.
    Head,
    /// The end, or another status.
    End,
}

impl Stream {
    pub(super) fn connect(
        registry: &Registry,
        token: Token,
        address: SocketAddr,
        request: &str,
        channel: usize,
        received: Received,
    ) -> io::Result<Self> {
        let connected = Instant::now();
        let mut socket = TcpStream::connect(address)?;
        registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self {
            connection: Connection {
                socket: Some(socket),
                request: request.as_bytes().to_vec(),
                received: 0,
                reader: Reader::default(),
                parser: Blocks::default(),
            },
            channel,
            received,
            has_begun: false,
            connected,
        })
    }

    pub(super) fn is_open(&self) -> bool {
        self.connection.socket.is_some()
    }

    /// The status other than 200 that it was answered with.
    pub(super) fn refusal(&self) -> Option<u16> {
        self.connection
            .reader
            .status()
            .filter(|status| *status != 200)
    }
}

impl Connection {
    /// Writes and reads what it can, and shows the events.
    pub(super) fn advance(
        &mut self,
        buffer: &mut [u8],
        mut event: impl FnMut(Block<'_>),
    ) -> io::Result<Heard> {
        let Some(socket) = &mut self.socket else {
            return Ok(Heard::Nothing);
        };
        if !self.request.is_empty() {
            match write(socket, &mut self.request) {
                Ok(true) => {}
                Ok(false) => return Ok(Heard::Nothing),
                Err(error) if is_end(&error) => return Ok(Heard::End),
                Err(error) => return Err(error),
            }
        }
        let had_head = self.reader.status().is_some();
        loop {
            let length = match socket.read(buffer) {
                Ok(0) => return Ok(Heard::End),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if is_end(&error) => return Ok(Heard::End),
                Err(error) => return Err(error),
            };
            self.received += length as u64;
            let (parser, mut too_large) = (&mut self.parser, false);
            self.reader
                .feed(&buffer[..length], |body| {
                    too_large |= parser.feed(body, &mut event).is_err();
                })
                .map_err(|bad| io::Error::other(format!("a stream sent {}", bad.0)))?;
            if too_large {
                return Err(io::Error::other("an event over 4 MiB"));
            }
            // A short read has emptied the socket: epoll reports what comes next.
            if length < buffer.len() {
                break;
            }
        }
        Ok(match self.reader.status() {
            Some(200) if self.reader.is_done() => Heard::End,
            Some(200) if !had_head => Heard::Head,
            Some(200) | None => Heard::Nothing,
            Some(_) => Heard::End,
        })
    }

    /// Whether the request still waits for the connection.
    pub(super) fn is_connecting(&self) -> bool {
        !self.request.is_empty()
    }

    pub(super) fn received(&self) -> u64 {
        self.received
    }

    pub(super) fn close(&mut self) {
        self.socket = None;
    }
}

fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, TimedOut};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionRefused | ConnectionReset | TimedOut
    )
}

/// Writes what the socket takes; true when that was all. A socket that is still
/// connecting takes nothing.
pub(super) fn write(socket: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<bool> {
    while !bytes.is_empty() {
        match socket.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(length) => drop(bytes.drain(..length)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected
                ) =>
            {
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
    }
    *bytes = Vec::new();
    Ok(true)
}
