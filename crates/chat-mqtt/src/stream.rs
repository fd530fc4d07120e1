use std::io::{self, BufRead as _, Read, Write};
use std::sync::Arc;

use bytes::{Buf as _, BytesMut};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::TcpStream;

/// The most bytes requested from the kernel at once: some hundred small events.
pub(crate) const READ_BYTES: usize = 64 * 1024;

/// The byte stream of a connection, plain or with TLS. Only [`ready`](Self::ready) waits, so the caller
/// can read, write and watch the clock in one task.
pub(crate) struct Stream {
    tcp: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

/// Why a stream cannot carry any more bytes.
#[derive(Debug)]
pub(crate) enum StreamError {
    /// The other side has closed it.
    Closed,
    Io(io::Error),
    Tls(rustls::Error),
}

impl From<io::Error> for StreamError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Stream {
    pub(crate) fn plain(tcp: TcpStream) -> Self {
        Self { tcp, tls: None }
    }

    /// TLS over this socket. The handshake happens during the first reads and writes.
    pub(crate) fn tls(
        tcp: TcpStream,
        config: Arc<ClientConfig>,
        server: ServerName<'static>,
    ) -> Result<Self, rustls::Error> {
        let tls = ClientConnection::new(config, server)?;
        Ok(Self {
            tcp,
            tls: Some(Box::new(tls)),
        })
    }

    /// Waits until the socket can be read, if `read`, or written, if `output` or TLS has something to
    /// send. If neither is wanted, it waits for ever.
    pub(crate) async fn ready(&self, read: bool, output: &BytesMut) -> io::Result<()> {
        let write = match &self.tls {
            None => !output.is_empty(),
            // What did not fit into the TLS buffer waits behind its content.
            Some(tls) => tls.wants_write(),
        };
        let interest = match (read, write) {
            (true, true) => Interest::READABLE | Interest::WRITABLE,
            (true, false) => Interest::READABLE,
            (false, true) => Interest::WRITABLE,
            (false, false) => return std::future::pending().await,
        };
        self.tcp.ready(interest).await.map(drop)
    }

    /// Writes as much of `output` as the socket accepts now.
    pub(crate) fn write(&mut self, output: &mut BytesMut) -> Result<(), StreamError> {
        let Some(tls) = &mut self.tls else {
            while !output.is_empty() {
                match Socket(&self.tcp).write(output) {
                    Ok(0) => return Err(StreamError::Closed),
                    Ok(written) => output.advance(written),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.into()),
                }
            }
            return Ok(());
        };
        loop {
            // The TLS buffer is limited to 64 KiB.
            let taken = tls.writer().write(output)?;
            output.advance(taken);
            if !tls.wants_write() {
                return Ok(());
            }
            match tls.write_tls(&mut Socket(&self.tcp)) {
                Ok(0) => return Err(StreamError::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Adds what has arrived to `input`; returns whether anything has.
    pub(crate) fn read(&mut self, input: &mut BytesMut) -> Result<bool, StreamError> {
        let Some(tls) = &mut self.tls else {
            input.reserve(READ_BYTES);
            return match self.tcp.try_read_buf(input) {
                Ok(0) => Err(StreamError::Closed),
                Ok(_) => Ok(true),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
                Err(error) => Err(error.into()),
            };
        };
        let before = input.len();
        while input.len() - before < READ_BYTES {
            match tls.read_tls(&mut Socket(&self.tcp)) {
                // Use what arrived before the end first; the next read finds the end again.
                Ok(0) if input.len() > before => break,
                Ok(0) => return Err(StreamError::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
            if let Err(error) = tls.process_new_packets() {
                // Tells the other side why. If that fails, it will see the end.
                tls.write_tls(&mut Socket(&self.tcp)).ok();
                return Err(StreamError::Tls(error));
            }
            loop {
                let mut reader = tls.reader();
                let chunk = match reader.fill_buf() {
                    Ok([]) if input.len() > before => return Ok(true),
                    Ok([]) => return Err(StreamError::Closed),
                    Ok(chunk) => chunk,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.into()),
                };
                input.extend_from_slice(chunk);
                let length = chunk.len();
                reader.consume(length);
            }
        }
        Ok(input.len() > before)
    }

    /// Writes the rest of the output and closes.
    pub(crate) async fn close(mut self, mut output: BytesMut) -> Result<(), StreamError> {
        let mut farewell = false;
        loop {
            self.write(&mut output)?;
            if let Some(tls) = &mut self.tls
                && output.is_empty()
                && !farewell
            {
                farewell = true;
                tls.send_close_notify();
                continue;
            }
            if output.is_empty() && !self.tls.as_ref().is_some_and(|tls| tls.wants_write()) {
                break;
            }
            self.ready(false, &output).await?;
        }
        Ok(self.tcp.shutdown().await?)
    }
}

/// Reads and writes without waiting, as rustls requires.
struct Socket<'a>(&'a TcpStream);

impl Read for Socket<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(into)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.0.try_write(from)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
