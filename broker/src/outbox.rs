//! What waits to be written to a client.

use std::io;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use futures_util::FutureExt as _;
use socket2::SockRef;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::time::Instant;

/// Beyond this, an outbox is not filled further; one packet may lead it there.
pub(crate) const FULL: usize = 64 * 1024;

/// How long a client may take nothing of what it is sent.
pub(crate) const STALL: Duration = Duration::from_secs(30);

/// The writing half of a connection.
pub(crate) trait Sink: AsyncWrite + Unpin {
    /// Writes what the system takes at this moment.
    ///
    /// It tells of room only when a third of its buffer is free, which may be a megabyte: nothing
    /// that a slow client takes within [`STALL`].
    fn write_now(&self, bytes: &[u8]) -> io::Result<usize>;
}

impl Sink for OwnedWriteHalf {
    fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        SockRef::from(self.as_ref()).send(bytes)
    }
}

/// The bytes, and when the client last took some.
pub(crate) struct Outbox {
    bytes: BytesMut,
    /// The socket did not take all of it at once.
    stuck: bool,
    taken: Instant,
}

impl Outbox {
    pub(crate) fn new() -> Self {
        Self {
            bytes: BytesMut::new(),
            stuck: false,
            taken: Instant::now(),
        }
    }

    /// To be appended to.
    pub(crate) fn bytes(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= FULL
    }

    /// The rest has to be [written](Self::write) when the client takes something.
    pub(crate) fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// Writes what the socket takes without waiting, unless it is stuck. The time in which the
    /// client has to take something begins.
    pub(crate) fn begin(&mut self, sink: &mut impl Sink) -> io::Result<()> {
        if self.stuck {
            return Ok(());
        }
        self.taken = Instant::now();
        while !self.bytes.is_empty() {
            match sink.write(&self.bytes).now_or_never() {
                Some(written) => self.written(written?)?,
                None => {
                    self.stuck = true;
                    break;
                }
            }
        }
        Ok(())
    }

    /// Waits until the client takes something. Loses nothing when it is dropped before.
    pub(crate) async fn write(&mut self, sink: &mut impl Sink) -> io::Result<()> {
        let written = sink.write(&self.bytes).await?;
        self.written(written)
    }

    /// When the client is stalled, unless it takes something before.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn stalls_at(&mut self, sink: &impl Sink) -> io::Result<Instant> {
        if self.taken + STALL <= Instant::now() {
            match sink.write_now(&self.bytes) {
                Ok(written) => self.written(written)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.taken + STALL)
    }

    fn written(&mut self, count: usize) -> io::Result<()> {
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.taken = Instant::now();
        self.bytes.advance(count);
        if self.bytes.is_empty() {
            self.stuck = false;
            if self.bytes.capacity() > 2 * FULL {
                self.bytes = BytesMut::new();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use test_kit::eventually;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Far below a third of what the system keeps for a connection.
    const LITTLE: usize = 64 * 1024;

    #[tokio::test]
    async fn little_that_a_client_takes_is_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (_reader, mut sink) = listener.accept().await.unwrap().0.into_split();
        let mut outbox = Outbox::new();
        outbox.bytes().resize(64 << 20, 0);
        // Until the system takes no more, by any way.
        outbox.begin(&mut sink).unwrap();
        while sink.write_now(&outbox.bytes).is_ok() {}
        let mut buffer = vec![0; LITTLE];
        // The peer's system tells of the room after a while, in pieces of its choice.
        eventually!(Duration::from_secs(20), {
            client.read_exact(&mut buffer).await?;
            assert!(outbox.write(&mut sink).now_or_never().is_none());
            sink.write_now(&outbox.bytes)?;
            Ok(())
        });
    }
}
