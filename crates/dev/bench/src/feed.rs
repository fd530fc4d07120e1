//! A program that only sends: it shows how many events the load generator itself can read and
//! check. Not a server for strangers.

use std::io::{self, Write};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::floor;
use crate::stamp::Stamp;

/// It begins when so many listen: each of them gets every event.
pub(crate) const STREAMS: usize = 100;
const ACCEPT: Token = Token(STREAMS);
/// Bytes that are made at a time and sent to all, as by a server that coalesces.
const BLOCK: usize = 64 << 10;
/// Of a message, as in the other loads.
const PAYLOAD: usize = 100;
const OPENED: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Serves until its listeners have gone.
pub(crate) fn serve() -> io::Result<()> {
    let listener = floor::listen()?;
    println!("http http://{}\nready", listener.local_addr()?);
    let (mut sockets, mut poll) = gather(listener)?;
    let mut events = Events::with_capacity(STREAMS);
    let mut next = 0;
    loop {
        let block = block(&mut next);
        let mut sent = [0; STREAMS];
        while sent.iter().any(|sent| *sent < block.len()) {
            let mut progress = false;
            for (socket, sent) in sockets.iter_mut().zip(&mut sent) {
                if *sent == block.len() {
                    continue;
                }
                match socket.write(&block[*sent..]) {
                    Ok(length) => {
                        *sent += length;
                        progress = true;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    // The load generator has seen enough.
                    Err(_) => return Ok(()),
                }
            }
            if !progress {
                poll.poll(&mut events, None)?;
            }
        }
    }
}

fn gather(mut listener: TcpListener) -> io::Result<(Vec<TcpStream>, Poll)> {
    let mut poll = Poll::new()?;
    let registry = poll.registry();
    registry.register(&mut listener, ACCEPT, Interest::READABLE)?;
    let mut events = Events::with_capacity(STREAMS);
    let mut sockets = Vec::new();
    while sockets.len() < STREAMS {
        poll.poll(&mut events, None)?;
        // An error is mostly that nobody waits; after any other the load generator, which then
        // lacks a stream, fails the reading.
        while let Ok((mut socket, _)) = listener.accept() {
            let token = Token(sockets.len());
            poll.registry()
                .register(&mut socket, token, Interest::WRITABLE)?;
            socket.write_all(OPENED)?;
            sockets.push(socket);
        }
    }
    Ok((sockets, poll))
}

/// Further events, framed as broadcast-sse does.
fn block(next: &mut u32) -> Vec<u8> {
    let mut block = Vec::with_capacity(BLOCK);
    while block.len() < BLOCK - 2 * PAYLOAD {
        let stamp = Stamp {
            publisher: 0,
            channel: 0,
            seq: *next,
            sent: 0,
        };
        let payload = stamp.payload(PAYLOAD);
        let payload = String::from_utf8_lossy(&payload);
        let event = format!(
            "id: k3f9zq.{next}\ndata: {{\"channel\":\"be4c0000-0000-4000-8000-000000000000\",\
             \"seq\":{next},\"type\":\"message\",\"text\":\"{payload}\"}}\n\n"
        );
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        block.extend_from_slice(chunk.as_bytes());
        *next += 1;
    }
    block
}

#[cfg(test)]
mod tests {
    use event_stream::Blocks;

    use super::*;
    use crate::response::Reader;
    use crate::stamp::Finder;

    #[test]
    fn blocks_are_events_in_sequence() {
        let (mut next, mut seqs, finder) = (0, Vec::new(), Finder::new());
        let (mut reader, mut parser) = (Reader::default(), Blocks::default());
        let blocks = [OPENED.to_vec(), block(&mut next), block(&mut next)].concat();
        let read = reader.feed(&blocks, |body| {
            let parsed = parser.feed(body, |event| {
                seqs.extend(
                    finder
                        .stamps(event.data.as_deref().unwrap_or_default())
                        .map(|stamp| stamp.seq),
                );
            });
            parsed.unwrap();
        });
        read.unwrap();
        assert_eq!(seqs, (0..next).collect::<Vec<_>>());
        assert!(blocks.len() / seqs.len() > 200);
    }
}
