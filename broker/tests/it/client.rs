//! An MQTT client that says what the tests want, byte by byte.

use std::time::Duration;

use broker::{Broker, BrokerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) fn config() -> BrokerConfig {
    BrokerConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        ..BrokerConfig::default()
    }
}

/// CONNECT with a client id of one byte (MQTT 3.1.1 §3.1), clean session, keep-alive 60 s.
pub(crate) fn connect(client_id: u8) -> Vec<u8> {
    let mut packet = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01".to_vec();
    packet.push(client_id);
    packet
}

pub(crate) async fn connected(broker: &Broker, client_id: u8) -> TcpStream {
    let stream = TcpStream::connect(broker.local_addr()).await.unwrap();
    welcomed(stream, client_id).await
}

async fn welcomed(mut stream: TcpStream, client_id: u8) -> TcpStream {
    stream.write_all(&connect(client_id)).await.unwrap();
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).await.unwrap();
    assert_eq!(connack, [0x20, 2, 0, 0]);
    stream
}

/// Connected, and subscribed to a filter of one byte with QoS 0.
pub(crate) async fn subscribed(broker: &Broker, client_id: u8, filter: u8) -> TcpStream {
    let stream = connected(broker, client_id).await;
    subscribe(stream, &[filter], 0, 0).await
}

/// Subscribes to a filter of less than 100 bytes (§3.8), and is granted this QoS (§3.9).
pub(crate) async fn subscribe(
    mut stream: TcpStream,
    filter: &[u8],
    wanted: u8,
    granted: u8,
) -> TcpStream {
    let length = u8::try_from(filter.len()).unwrap();
    let head = [0x82, 5 + length, 0, 1, 0, length];
    let packet = [&head[..], filter, &[wanted]].concat();
    stream.write_all(&packet).await.unwrap();
    let mut suback = [0; 5];
    stream.read_exact(&mut suback).await.unwrap();
    assert_eq!(suback, [0x90, 3, 0, 1, granted]);
    stream
}

/// As [`subscribed`], with a system that keeps only some KiB of what was not read yet.
pub(crate) async fn narrow(broker: &Broker, client_id: u8, filter: u8) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = socket.connect(broker.local_addr()).await.unwrap();
    subscribe(welcomed(stream, client_id).await, &[filter], 0, 0).await
}

/// Waits until the router has all that was sent before: it answers a PUBLISH of QoS 1, to a topic
/// of its own (§3.4).
pub(crate) async fn heard_by_router(stream: &mut TcpStream) {
    stream
        .write_all(b"\x32\x06\x00\x01z\x00\x01!")
        .await
        .unwrap();
    let mut puback = [0; 4];
    stream.read_exact(&mut puback).await.unwrap();
    assert_eq!(puback, [0x40, 2, 0, 1]);
}

/// Whether the broker closes the connection, whatever else it says before.
pub(crate) async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    // A reset is a close as well.
    tokio::time::timeout(SOON, stream.read_to_end(&mut rest))
        .await
        .is_ok()
}
