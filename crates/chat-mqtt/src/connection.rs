//! One MQTT 3.1.1 connection, from CONNECT to its end.
//!
//! It uses rumqttc's packets and their encoding, but not its event loop: that does not report
//! acknowledgements to the caller, flushes after every packet, reads ten at a time, keeps the packets of
//! a dead session, and ends the connection if an incoming packet exceeds the limit.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use rumqttc::mqttbytes::Error as CodecError;
use rumqttc::mqttbytes::v4::{Connect, ConnectReturnCode, Packet, PubAck};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use crate::stream::{READ_BYTES, Stream, StreamError};
use crate::{BrokerUrl, MqttConfig};

mod error;

pub(crate) use error::ConnectionError;

/// If the output buffer holds more bytes than this, the broker is not reading: nothing is added.
const FULL_OUTPUT: usize = 256 * 1024;

/// How long sending DISCONNECT and closing may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What the broker sent.
pub(crate) enum Received {
    Packet(Packet),
    /// A PUBLISH over the limit. It is skipped, and acknowledged if that is required.
    TooLarge,
}

pub(crate) struct Connection {
    stream: Stream,
    input: BytesMut,
    /// How many bytes of an oversize packet must still be discarded.
    skip: usize,
    output: BytesMut,
    max_packet: usize,
    keep_alive: Duration,
    next_ping: Instant,
    /// When the ping was sent that has not been answered yet.
    pinged: Option<Instant>,
}

impl Connection {
    /// Connects to this address and waits for CONNACK. The session is always clean: callers start over,
    /// so what a broker kept from an earlier session is of no use to them.
    pub(crate) async fn open(
        config: &MqttConfig,
        url: &BrokerUrl,
        tls: Option<Arc<ClientConfig>>,
        client_id: String,
    ) -> Result<Self, ConnectionError> {
        let handshake = async {
            let stream = connect(url, tls).await?;
            Self::handshake(config, stream, client_id).await
        };
        timeout(config.connect_timeout, handshake)
            .await
            .map_err(|_elapsed| ConnectionError::ConnectTimeout(config.connect_timeout))?
            .map_err(|error| error.while_connecting(config, url))
    }

    async fn handshake(
        config: &MqttConfig,
        stream: Stream,
        client_id: String,
    ) -> Result<Self, ConnectionError> {
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
        loop {
            connection.write_some()?;
            connection.stream.ready(true, &connection.output).await?;
            connection.read_some()?;
            if let Some(received) = connection.next()? {
                return match received {
                    Received::Packet(Packet::ConnAck(ack)) => match ack.code {
                        ConnectReturnCode::Success => Ok(connection),
                        code => Err(ConnectionError::Refused(code)),
                    },
                    _ => Err(ConnectionError::Unexpected("no CONNACK")),
                };
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

    /// Writes the output and keeps the connection alive until something was read. If `read` is false,
    /// nothing is read, and this returns only when output was written or on an error. It may be dropped
    /// and called again at any time.
    pub(crate) async fn drive(&mut self, read: bool) -> Result<(), ConnectionError> {
        loop {
            let was_full = !self.has_room();
            self.write_some()?;
            if was_full && self.has_room() {
                return Ok(());
            }
            let deadline = self.deadline();
            tokio::select! {
                ready = self.stream.ready(read, &self.output) => {
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
        Ok(self.stream.write(&mut self.output)?)
    }

    fn read_some(&mut self) -> Result<bool, ConnectionError> {
        let read = self.stream.read(&mut self.input)?;
        if read {
            self.pinged = None;
        }
        Ok(read)
    }

    fn deadline(&self) -> Instant {
        match self.pinged {
            Some(pinged) => self.next_ping.min(pinged + self.keep_alive),
            None => self.next_ping,
        }
    }

    /// Sends a ping twice per keep-alive, whatever else is sent. Its answer, or any other packet, must
    /// arrive within one keep-alive. While reading is paused no answer can be seen, so none is expected.
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

    /// The next packet in the input; `None` if it is not complete.
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
        // The remaining length ends with the first byte whose top bit is clear; it was parsed already.
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

    /// Sends DISCONNECT and closes.
    pub(crate) async fn close(mut self) {
        if self.send(&Packet::Disconnect).is_err() {
            return;
        }
        match timeout(CLOSE_TIMEOUT, self.stream.close(self.output)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(?error, "the broker left before our DISCONNECT"),
            Err(_elapsed) => tracing::debug!("the broker did not take our DISCONNECT"),
        }
    }
}

async fn connect(
    url: &BrokerUrl,
    tls: Option<Arc<ClientConfig>>,
) -> Result<Stream, ConnectionError> {
    let stream = TcpStream::connect((url.host(), url.port()))
        .await
        .map_err(ConnectionError::NoConnection)?;
    stream.set_nodelay(true)?;
    match tls.filter(|_| url.is_tls()) {
        None => Ok(Stream::plain(stream)),
        Some(config) => {
            let server = ServerName::try_from(url.host().to_owned())
                .map_err(|_| ConnectionError::NotAName)?;
            Stream::tls(stream, config, server)
                .map_err(|error| ConnectionError::from(StreamError::Tls(error)))
        }
    }
}
