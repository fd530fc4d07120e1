use std::io::{self, Read};
use std::net::SocketAddr;
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::stream::write;
use crate::response::Reader;

/// A connection that posts, one post at a time.
pub(super) struct Publisher {
    socket: TcpStream,
    post: Option<Post>,
}

struct Post {
    channel: usize,
    begin: Instant,
    /// What is not written yet.
    request: Vec<u8>,
    answer: Reader,
}

/// The answer to a post.
pub(super) struct Answer {
    pub(super) channel: usize,
    pub(super) accepted: bool,
    /// Nanoseconds.
    pub(super) took: u64,
}

impl Publisher {
    pub(super) fn connect(
        registry: &Registry,
        token: Token,
        address: SocketAddr,
    ) -> io::Result<Self> {
        let mut socket = TcpStream::connect(address)?;
        registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
        // Fails while the connection is being made on some systems; Linux takes it.
        socket.set_nodelay(true)?;
        Ok(Self { socket, post: None })
    }

    pub(super) fn is_idle(&self) -> bool {
        self.post.is_none()
    }

    pub(super) fn post(&mut self, request: Vec<u8>, channel: usize) -> io::Result<()> {
        let mut post = Post {
            channel,
            begin: Instant::now(),
            request,
            answer: Reader::default(),
        };
        write(&mut self.socket, &mut post.request)?;
        self.post = Some(post);
        Ok(())
    }

    /// Writes and reads what it can; the answer, once it is complete.
    pub(super) fn advance(&mut self, buffer: &mut [u8]) -> io::Result<Option<Answer>> {
        let Some(post) = &mut self.post else {
            return Ok(None);
        };
        if !write(&mut self.socket, &mut post.request)? {
            return Ok(None);
        }
        loop {
            let length = match self.socket.read(buffer) {
                Ok(0) => {
                    return Err(io::Error::other(
                        "the server closed a publisher's connection",
                    ));
                }
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let fed = post.answer.feed(&buffer[..length], |_| ());
            fed.map_err(|bad| io::Error::other(format!("a post was answered with {}", bad.0)))?;
            if post.answer.is_done() {
                break;
            }
        }
        let answer = Answer {
            channel: post.channel,
            accepted: matches!(post.answer.status(), Some(200..=299)),
            took: u64::try_from(post.begin.elapsed().as_nanos()).unwrap_or(u64::MAX),
        };
        self.post = None;
        Ok(Some(answer))
    }
}
