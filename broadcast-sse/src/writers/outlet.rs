use std::io::{self, ErrorKind, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use http_server::http::{Place, Taken};
use tokio::net::TcpStream;

use super::{Flow, Slot, Source};

/// The most parts in one system call.
const PARTS: usize = 128;

/// One stream and its socket.
pub(super) struct Outlet<S> {
    source: S,
    socket: TcpStream,
    unfinished: Option<Box<Unfinished>>,
    /// The stream is over once the unfinished write is done.
    ending: bool,
    _place: Place,
    /// Its token becomes free only when the outlet is dropped.
    slot: Arc<Slot<S>>,
}

/// What the kernel has not accepted yet.
struct Unfinished {
    parts: Vec<Bytes>,
    at: At,
    /// When it last accepted anything.
    since: Instant,
}

/// How far the parts have been written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct At {
    part: usize,
    offset: usize,
}

/// The state of an outlet after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Everything is written.
    Idle,
    /// The kernel has no room; the reactor calls when it has.
    Blocked,
    /// The stream is over. If the socket failed, the client has left: whatever the error, there is nobody
    /// to tell, and a client that returns resumes.
    Gone,
}

impl<S: Source> Outlet<S> {
    pub(super) fn new(slot: Arc<Slot<S>>, taken: Taken, mut source: S) -> Self {
        let ending = source.receive(&taken.unread) == Flow::Over;
        Self {
            source,
            socket: taken.socket,
            unfinished: None,
            ending,
            _place: taken.place,
            slot,
        }
    }

    pub(super) fn token(&self) -> usize {
        self.slot.token
    }

    /// Handles a notification of the waker. `parts` is scratch space, here and below.
    pub(super) fn notified(&mut self, parts: &mut Vec<Bytes>) -> Standing {
        if self.unfinished.is_some() {
            return Standing::Blocked;
        }
        if self.ending {
            return Standing::Gone;
        }
        self.ending = self.source.next(parts) == Flow::Over;
        match self.send(parts) {
            Standing::Idle if self.ending => Standing::Gone,
            other => other,
        }
    }

    /// Handles a call of the reactor: reads what the client has sent, continues an unfinished write, and
    /// registers for the next call.
    pub(super) fn look(&mut self, parts: &mut Vec<Bytes>) -> Standing {
        if self.read() == Standing::Gone {
            return Standing::Gone;
        }
        match self.resume() {
            Standing::Idle if self.ending => Standing::Gone,
            // The source was not asked while the socket was blocked.
            Standing::Idle => self.notified(parts),
            other => other,
        }
    }

    /// Sends a ping, unless something else already waits to be written.
    pub(super) fn ping(&mut self, parts: &mut Vec<Bytes>) -> Standing {
        if self.unfinished.is_some() {
            return Standing::Blocked;
        }
        parts.push(self.source.ping());
        self.send(parts)
    }

    /// Sends the last words and ends.
    pub(super) fn finish(&mut self, parts: &mut Vec<Bytes>) -> Standing {
        if std::mem::replace(&mut self.ending, true) {
            return Standing::Blocked;
        }
        let last_words = self.source.last_words();
        if let Some(unfinished) = &mut self.unfinished {
            unfinished.parts.push(last_words);
            return Standing::Blocked;
        }
        parts.push(last_words);
        match self.send(parts) {
            Standing::Idle => Standing::Gone,
            other => other,
        }
    }

    /// Since when the client has read nothing.
    pub(super) fn blocked_since(&self) -> Option<Instant> {
        self.unfinished.as_ref().map(|unfinished| unfinished.since)
    }

    /// Writes the parts, and keeps what there is no room for. Leaves `parts` empty.
    fn send(&mut self, parts: &mut Vec<Bytes>) -> Standing {
        let mut at = At::default();
        let written = at.write(&self.socket, parts);
        let standing = match written {
            Ok(true) => Standing::Idle,
            Ok(false) => {
                self.unfinished = Some(Box::new(Unfinished {
                    parts: parts.drain(at.part..).collect(),
                    at: At { part: 0, ..at },
                    since: Instant::now(),
                }));
                self.resume()
            }
            Err(_) => Standing::Gone,
        };
        parts.clear();
        standing
    }

    /// Continues writing, and registers with the reactor if there is no room.
    fn resume(&mut self) -> Standing {
        let waker = Waker::from(self.slot.clone());
        let mut context = Context::from_waker(&waker);
        while let Some(unfinished) = &mut self.unfinished {
            match self.socket.poll_write_ready(&mut context) {
                Poll::Pending => return Standing::Blocked,
                Poll::Ready(Err(_)) => return Standing::Gone,
                Poll::Ready(Ok(())) => {}
            }
            match unfinished.write(&self.socket) {
                Ok(true) => self.unfinished = None,
                Ok(false) => {}
                Err(_) => return Standing::Gone,
            }
        }
        Standing::Idle
    }

    /// Reads what the client sends after its request, and registers with the reactor for more.
    fn read(&mut self) -> Standing {
        let waker = Waker::from(self.slot.clone());
        let mut context = Context::from_waker(&waker);
        let mut scratch = [0; 4_096];
        loop {
            match self.socket.poll_read_ready(&mut context) {
                Poll::Pending => return Standing::Idle,
                Poll::Ready(Err(_)) => return Standing::Gone,
                Poll::Ready(Ok(())) => {}
            }
            match self.socket.try_read(&mut scratch) {
                Ok(0) => return Standing::Gone,
                Ok(read) if self.source.receive(&scratch[..read]) == Flow::Over => {
                    return Standing::Gone;
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return Standing::Gone,
            }
        }
    }
}

impl Unfinished {
    fn write(&mut self, socket: &TcpStream) -> io::Result<bool> {
        let before = self.at;
        let finished = self.at.write(socket, &self.parts)?;
        if self.at != before {
            self.since = Instant::now();
        }
        Ok(finished)
    }
}

impl At {
    /// Continues writing from here. Returns whether everything was written; if not, there is no room now.
    fn write(&mut self, socket: &TcpStream, parts: &[Bytes]) -> io::Result<bool> {
        while self.part < parts.len() {
            match self.write_some(socket, &parts[self.part..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => self.advance(parts, written),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Makes one system call.
    fn write_some(self, socket: &TcpStream, parts: &[Bytes]) -> io::Result<usize> {
        if let [part] = parts {
            return socket.try_write(&part[self.offset..]);
        }
        let mut slices = [IoSlice::new(&[]); PARTS];
        let mut offset = self.offset;
        for (slice, part) in slices.iter_mut().zip(parts) {
            *slice = IoSlice::new(&part[offset..]);
            offset = 0;
        }
        let used = parts.len().min(PARTS);
        socket.try_write_vectored(&slices[..used])
    }

    fn advance(&mut self, parts: &[Bytes], mut written: usize) {
        while let Some(part) = parts.get(self.part) {
            let left = part.len() - self.offset;
            if written < left {
                self.offset += written;
                return;
            }
            written -= left;
            self.part += 1;
            self.offset = 0;
        }
    }
}
