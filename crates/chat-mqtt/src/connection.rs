//! One MQTT 3.1.1 connection, from CONNECT to its end.
//!
//! Of rumqttc this uses the packets and their encoding. Its event loop is left out: it gives no
//! acknowledgement to the caller, flushes after every packet, reads ten at a time, keeps packets of
//! a dead session, and ends the connection for an incoming packet over the limit.

use std::io;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use rumqttc::mqttbytes::{
    Error as CodecError,
    v4::{Connect, ConnectReturnCode, Packet, PubAck},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use crate::MqttConfig;

/// What is asked of the kernel at once: some hundred small events.
const READ_BYTES: usize = 64 * 1024;

/// More than this in the output buffer means that the broker does not read: nothing is added.
const FULL_OUTPUT: usize = 256 * 1024;

/// How long a farewell may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why there is no connection (any more).
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no answer within {0:?}")]
    ConnectTimeout(Duration),
    #[error("the broker refused the connection: {0:?}")]
    Refused(ConnectReturnCode),
    #[error("not what MQTT 3.1.1 allows here: {0}")]
    Codec(#[from] CodecError),
    #[error("the broker sent an unexpected packet: {0}")]
    Unexpected(&'static str),
    #[error("the broker closed the connection")]
    Closed,
    #[error("the broker did not answer a ping")]
    Silent,
    #[error("the broker did not acknowledge within {0:?}")]
    Unacknowledged(Duration),
}

impl ConnectionError {
    /// Whether the broker ended the connection, as it does at a message that it will not take
    /// (MQTT 3.1.1 §3.3.5). A silent network, or a broker that holds its answers back, does not
    /// point at a message.
    pub(crate) fn ended_by_broker(&self) -> bool {
        matches!(self, Self::Closed | Self::Io(_))
    }
}

/// What the broker sent.
pub(crate) enum Received {
    Packet(Packet),
    /// A PUBLISH over the limit; it is skipped, and acknowledged where that is due.
    TooLarge,
}

pub(crate) struct Connection {
    stream: TcpStream,
    input: BytesMut,
    /// Bytes of an oversize packet that are still to be thrown away.
    skip: usize,
    output: BytesMut,
    max_packet: usize,
    keep_alive: Duration,
    next_ping: Instant,
    /// When the ping was sent after which nothing was heard.
    pinged: Option<Instant>,
}

impl Connection {
    /// Connects and waits for CONNACK. Always a clean session: what a broker kept of an earlier
    /// one is of no use to callers that start over.
    pub(crate) async fn open(
        config: &MqttConfig,
        client_id: String,
    ) -> Result<Self, ConnectionError> {
        timeout(config.connect_timeout, Self::handshake(config, client_id))
            .await
            .map_err(|_elapsed| ConnectionError::ConnectTimeout(config.connect_timeout))?
    }

    async fn handshake(config: &MqttConfig, client_id: String) -> Result<Self, ConnectionError> {
        let stream = TcpStream::connect((config.url.host(), config.url.port())).await?;
        stream.set_nodelay(true)?;
        let mut connection = Self {
            stream,
            input: BytesMut::with_capacity(READ_BYTES),
            skip: 0,
            output: BytesMut::with_capacity(4 * 1024),
            max_packet: config.max_packet,
            keep_alive: config.keep_alive,
            next_ping: Instant::now() + config.keep_alive / 2,
            pinged: None,
        };
        let mut connect = Connect::new(client_id);
        connect.keep_alive = config.keep_alive_seconds();
        if let Some((username, password)) = config.login() {
            connect.set_login(username, password);
        }
        connection.send(&Packet::Connect(connect))?;
        connection
            .stream
            .write_all_buf(&mut connection.output)
            .await?;
        loop {
            if let Some(received) = connection.next()? {
                return match received {
                    Received::Packet(Packet::ConnAck(ack)) => match ack.code {
                        ConnectReturnCode::Success => Ok(connection),
                        code => Err(ConnectionError::Refused(code)),
                    },
                    _ => Err(ConnectionError::Unexpected("no CONNACK")),
                };
            }
            if connection.stream.read_buf(&mut connection.input).await? == 0 {
                return Err(ConnectionError::Closed);
            }
        }
    }

    /// Puts a packet into the output; [`drive`](Self::drive) writes it.
    pub(crate) fn send(&mut self, packet: &Packet) -> Result<(), CodecError> {
        packet.write(&mut self.output, self.max_packet).map(drop)
    }

    /// Whether more packets may be put into the output now.
    pub(crate) fn has_room(&self) -> bool {
        self.output.len() < FULL_OUTPUT
    }

    /// Writes the output and keeps the connection alive until something was read. With `read`
    /// false, nothing is read, and this returns only with an error or when output was written.
    /// May be dropped and called again at any time.
    pub(crate) async fn drive(&mut self, read: bool) -> Result<(), ConnectionError> {
        loop {
            let was_full = !self.has_room();
            self.write_some()?;
            if was_full && self.has_room() {
                return Ok(());
            }
            let interest = match (read, self.output.is_empty()) {
                (true, true) => Some(Interest::READABLE),
                (true, false) => Some(Interest::READABLE | Interest::WRITABLE),
                (false, false) => Some(Interest::WRITABLE),
                (false, true) => None,
            };
            let deadline = self.deadline();
            tokio::select! {
                ready = self.stream.ready(interest.unwrap_or(Interest::READABLE)), if interest.is_some() => {
                    ready?;
                    if read && self.read_some()? {
                        return Ok(());
                    }
                }
                () = sleep_until(deadline) => self.tick(read)?,
            }
        }
    }

    fn write_some(&mut self) -> Result<(), ConnectionError> {
        while !self.output.is_empty() {
            match self.stream.try_write(&self.output) {
                Ok(0) => return Err(ConnectionError::Closed),
                Ok(written) => self.output.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn read_some(&mut self) -> Result<bool, ConnectionError> {
        self.input.reserve(READ_BYTES);
        match self.stream.try_read_buf(&mut self.input) {
            Ok(0) => Err(ConnectionError::Closed),
            Ok(_) => {
                self.pinged = None;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn deadline(&self) -> Instant {
        match self.pinged {
            Some(pinged) => self.next_ping.min(pinged + self.keep_alive),
            None => self.next_ping,
        }
    }

    /// Twice per keep-alive a ping, whatever else is sent: its answer, or any other packet, must
    /// come within one keep-alive. While reading is paused no answer can be seen, so none is missed.
    fn tick(&mut self, read: bool) -> Result<(), ConnectionError> {
        let now = Instant::now();
        if !read {
            self.pinged = None;
        }
        if self
            .pinged
            .is_some_and(|pinged| now >= pinged + self.keep_alive)
        {
            return Err(ConnectionError::Silent);
        }
        if now >= self.next_ping {
            self.next_ping = now + self.keep_alive / 2;
            if self.has_room() {
                self.send(&Packet::PingReq)?;
            }
            if read {
                self.pinged.get_or_insert(now);
            }
        }
        Ok(())
    }

    /// The next packet of what was read; `None` when it is not complete.
    pub(crate) fn next(&mut self) -> Result<Option<Received>, ConnectionError> {
        loop {
            if self.skip > 0 {
                let now = self.skip.min(self.input.len());
                self.input.advance(now);
                self.skip -= now;
                if self.skip > 0 {
                    return Ok(None);
                }
            }
            return match Packet::read(&mut self.input, self.max_packet) {
                Ok(Packet::PingResp) => continue,
                Ok(packet) => Ok(Some(Received::Packet(packet))),
                Err(CodecError::InsufficientBytes(_)) => Ok(None),
                Err(CodecError::PayloadSizeLimitExceeded(remaining)) => {
                    self.skip_publish(remaining)
                }
                Err(error) => Err(error.into()),
            };
        }
    }

    /// Begins to skip a PUBLISH with this remaining length (MQTT 3.1.1 §3.3).
    fn skip_publish(&mut self, remaining: usize) -> Result<Option<Received>, ConnectionError> {
        const PUBLISH: u8 = 3;
        let first = self.input[0];
        if first >> 4 != PUBLISH {
            return Err(CodecError::PayloadSizeLimitExceeded(remaining).into());
        }
        // The remaining length ends with the first byte without its top bit; it was parsed already.
        let header = 2 + self.input[1..]
            .iter()
            .take_while(|byte| **byte & 0x80 != 0)
            .count();
        let Some(length) = self.input.get(header..header + 2) else {
            return Ok(None);
        };
        let id_at = header + 2 + usize::from(u16::from_be_bytes([length[0], length[1]]));
        if (first >> 1) & 0b11 == 1 {
            let Some(id) = self.input.get(id_at..id_at + 2) else {
                return Ok(None);
            };
            let id = u16::from_be_bytes([id[0], id[1]]);
            self.send(&Packet::PubAck(PubAck::new(id)))?;
        }
        self.skip = header + remaining;
        Ok(Some(Received::TooLarge))
    }

    /// Says DISCONNECT and closes.
    pub(crate) async fn close(mut self) {
        if self.send(&Packet::Disconnect).is_err() {
            return;
        }
        let farewell = async {
            self.stream.write_all_buf(&mut self.output).await?;
            self.stream.shutdown().await
        };
        match timeout(CLOSE_TIMEOUT, farewell).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "broker left before the farewell"),
            Err(_elapsed) => tracing::debug!("broker did not take the farewell"),
        }
    }
}

/// The size in bytes of a PUBLISH with a packet id (MQTT 3.1.1 §3.3).
pub(crate) fn publish_size(topic: usize, payload: usize) -> usize {
    let remaining = 2 + topic + 2 + payload;
    // Seven bits of the remaining length a byte (§2.2.3).
    let length_bytes = match remaining {
        0..=127 => 1,
        128..=16_383 => 2,
        16_384..=2_097_151 => 3,
        _ => 4,
    };
    1 + length_bytes + remaining
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use rumqttc::mqttbytes::{QoS, v4::Publish};

    use super::*;

    proptest! {
        #[test]
        fn publish_size_is_what_the_codec_writes(topic in 1_usize..300, payload in 0_usize..40_000) {
            let mut publish = Publish::from_bytes(
                "t".repeat(topic),
                QoS::AtLeastOnce,
                Bytes::from(vec![b'x'; payload]),
            );
            publish.pkid = 1;
            let mut out = BytesMut::new();
            Packet::Publish(publish).write(&mut out, usize::MAX).unwrap();
            prop_assert_eq!(publish_size(topic, payload), out.len());
        }
    }
}
