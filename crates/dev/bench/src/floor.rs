//! The physical limit of a machine: one thread, one epoll, one `send` for each
//! listener, nothing stored and nothing checked. Not a server for strangers.

use std::collections::HashMap;
use std::io::{self, Read, Write};

use memchr::memmem;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const ACCEPT: Token = Token(usize::MAX - 1);
const OPENED: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

#[derive(Default)]
struct Client {
    socket: Option<TcpStream>,
    /// What has arrived of a request.
    request: Vec<u8>,
    /// What its socket did not take.
    unsent: Vec<u8>,
}

/// Serves until the process is ended.
pub(crate) fn serve() -> io::Result<()> {
    let listener = listen()?;
    println!("http http://{}\nready", listener.local_addr()?);
    run(listener)
}

/// On any free port, with the backlog of the services: the same start for all.
pub(crate) fn listen() -> io::Result<TcpListener> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let _inside = runtime.enter();
    let listener = http_server::http::bind(([127, 0, 0, 1], 0).into()).map_err(io::Error::other)?;
    Ok(TcpListener::from_std(listener.into_std()?))
}

/// Serves for ever.
pub(crate) fn run(mut listener: TcpListener) -> io::Result<()> {
    let mut poll = Poll::new()?;
    poll.registry()
        .register(&mut listener, ACCEPT, Interest::READABLE)?;
    let mut events = Events::with_capacity(1024);
    let mut floor = Floor::default();
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            if event.token() == ACCEPT {
                floor.accept(&listener, &poll)?;
            } else {
                floor.advance(event.token().0);
            }
        }
    }
}

#[derive(Default)]
struct Floor {
    clients: Vec<Client>,
    listeners: HashMap<Vec<u8>, Vec<usize>>,
}

impl Floor {
    fn accept(&mut self, listener: &TcpListener, poll: &Poll) -> io::Result<()> {
        loop {
            match listener.accept() {
                Ok((mut socket, _)) => {
                    socket.set_nodelay(true)?;
                    let token = Token(self.clients.len());
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    poll.registry().register(&mut socket, token, interest)?;
                    self.clients.push(Client {
                        socket: Some(socket),
                        ..Client::default()
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn advance(&mut self, index: usize) {
        let client = &mut self.clients[index];
        client.send(&[]);
        while let Some(socket) = &mut client.socket {
            let mut buffer = [0; 4096];
            match socket.read(&mut buffer) {
                Ok(length @ 1..) => client.request.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                _ => client.socket = None,
            }
        }
        if let Some(request) = Request::read(&client.request) {
            let channel = request.channel.to_vec();
            let length = request.length;
            let Some(body) = request.body else {
                client.request = Vec::new();
                client.send(OPENED);
                self.listeners.entry(channel).or_default().push(index);
                return;
            };
            let data = b"data: ".len() + body.len() + b"\n\n".len();
            let frame = [format!("{data:x}\r\ndata: ").as_bytes(), body, b"\n\n\r\n"].concat();
            client.request.drain(..length);
            client.send(ANSWER);
            for listener in self.listeners.get(&channel).into_iter().flatten() {
                self.clients[*listener].send(&frame);
            }
        }
    }
}

impl Client {
    fn send(&mut self, frame: &[u8]) {
        let Some(socket) = &mut self.socket else {
            return;
        };
        while !self.unsent.is_empty() {
            match socket.write(&self.unsent) {
                Ok(length) => drop(self.unsent.drain(..length)),
                // Full, or broken: then the next read finds its end.
                Err(_) => break,
            }
        }
        let sent = if frame.is_empty() || !self.unsent.is_empty() {
            0
        } else {
            // As above; what was not taken waits in `unsent`.
            socket.write(frame).unwrap_or(0)
        };
        self.unsent.extend_from_slice(&frame[sent..]);
    }
}

/// A complete request.
#[derive(Debug, PartialEq, Eq)]
struct Request<'a> {
    channel: &'a [u8],
    /// Of a POST.
    body: Option<&'a [u8]>,
    /// Of the request as a whole.
    length: usize,
}

impl<'a> Request<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let head = memmem::find(bytes, b"\r\n\r\n")? + 4;
        let channel = &bytes[memmem::find(bytes, b"?c=")? + 3..];
        let channel = &channel[..memchr::memchr(b' ', channel)?];
        if bytes.starts_with(b"GET ") {
            return Some(Self {
                channel,
                body: None,
                length: head,
            });
        }
        let length = memmem::find(&bytes[..head], b"Content-Length: ")? + 16;
        let digits = bytes[length..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit());
        let length = digits.fold(0, |value, digit| value * 10 + usize::from(digit - b'0'));
        Some(Self {
            channel,
            body: Some(bytes.get(head..head + length)?),
            length: head + length,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_when_complete() {
        let get = b"GET /sub?c=a-b HTTP/1.1\r\nHost: x\r\n\r\n";
        let request = Request::read(get).unwrap();
        assert_eq!((request.channel, request.body), (&b"a-b"[..], None));
        assert_eq!(request.length, get.len());
        let post = b"POST /pub?c=c HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi";
        let request = Request::read(post).unwrap();
        assert_eq!(
            (request.channel, request.body),
            (&b"c"[..], Some(&b"hi"[..]))
        );
        assert_eq!(request.length, post.len());
        assert_eq!(Request::read(&post[..post.len() - 1]), None);
        assert_eq!(Request::read(&get[..get.len() - 1]), None);
    }
}
