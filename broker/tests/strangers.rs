//! What strangers send must not cost anyone else anything.

use std::time::Duration;

use broker::{Broker, BrokerConfig, BrokerError};
use service_kit::lifecycle::Lifecycle;
use test_kit::{ensure, eventually, mqtt_publish};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const SOON: Duration = Duration::from_secs(20);

fn config() -> BrokerConfig {
    BrokerConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        ..BrokerConfig::default()
    }
}

/// CONNECT with a client id of one byte (MQTT 3.1.1 §3.1), clean session, keep-alive 60 s.
fn connect(client_id: u8) -> Vec<u8> {
    let mut packet = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01".to_vec();
    packet.push(client_id);
    packet
}

async fn connected(broker: &Broker, client_id: u8) -> TcpStream {
    let mut stream = TcpStream::connect(broker.local_addr()).await.unwrap();
    stream.write_all(&connect(client_id)).await.unwrap();
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).await.unwrap();
    assert_eq!(connack, [0x20, 2, 0, 0]);
    stream
}

/// Whether the broker closes the connection, whatever else it says before.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    // A reset is a close as well.
    tokio::time::timeout(SOON, stream.read_to_end(&mut rest))
        .await
        .is_ok()
}

#[tokio::test]
async fn packets_that_harm_end_their_own_connection_only() {
    let broker = Broker::bind(config()).await.unwrap();
    let mut subscriber = connected(&broker, b's').await;
    subscriber
        .write_all(b"\x82\x0b\x00\x01\x00\x06chat/+\x00")
        .await
        .unwrap();
    let mut suback = [0; 5];
    subscriber.read_exact(&mut suback).await.unwrap();

    let hostile: [&[u8]; 11] = [
        // PUBLISH to "é", to "", to "a/+", with a topic that is not UTF-8, over its own end.
        b"\x30\x05\x00\x02\xc3\xa9!",
        b"\x30\x03\x00\x00!",
        b"\x30\x06\x00\x03a/+!",
        b"\x30\x05\x00\x02a\xff!",
        b"\x30\x05\xff\xff\x61\x61\x61",
        // SUBSCRIBE to "$share/g/x", to "a#", without a filter.
        b"\x82\x0f\x00\x02\x00\x0a$share/g/x\x00",
        b"\x82\x07\x00\x02\x00\x02a#\x00",
        b"\x82\x02\x00\x02",
        // A second CONNECT; a length of 256 MiB; a packet of a type that does not exist.
        b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01z",
        b"\x30\xff\xff\xff\x7f",
        b"\x00\x02ab",
    ];
    for (number, packet) in hostile.into_iter().enumerate() {
        let mut stranger = connected(&broker, b'A' + u8::try_from(number).unwrap()).await;
        stranger.write_all(packet).await.unwrap();
        assert!(is_closed(&mut stranger).await, "{packet:02x?}");
    }
    // A will on "é", and a client id that the router would swallow: closed without CONNACK.
    for packet in [
        b"\x10\x14\x00\x04MQTT\x04\x06\x00\x3c\x00\x01w\x00\x02\xc3\xa9\x00\x01!".as_slice(),
        b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01+",
    ] {
        for _again in 0..2 {
            let mut stranger = TcpStream::connect(broker.local_addr()).await.unwrap();
            stranger.write_all(packet).await.unwrap();
            assert!(is_closed(&mut stranger).await, "{packet:02x?}");
        }
    }

    mqtt_publish(broker.local_addr(), "chat/x", b"still here").await;
    let mut got = vec![0; 2 + 2 + 6 + 10];
    subscriber.read_exact(&mut got).await.unwrap();
    assert!(got.ends_with(b"chat/xstill here"), "{got:?}");
}

#[tokio::test]
async fn connections_and_filters_are_bounded() {
    let broker = Broker::bind(BrokerConfig {
        max_connections: 3,
        max_filters: 2,
        ..config()
    })
    .await
    .unwrap();
    let mut standing = Vec::new();
    // The probe of the start may not be forgotten yet.
    eventually!(SOON, {
        let mut stream = TcpStream::connect(broker.local_addr()).await?;
        stream
            .write_all(&connect(b'a' + u8::try_from(standing.len())?))
            .await?;
        let mut connack = [0; 4];
        if stream.read_exact(&mut connack).await.is_ok() {
            standing.push(stream);
        }
        ensure!(standing.len() == 3, "{} connections", standing.len());
        Ok(())
    });
    let mut fourth = TcpStream::connect(broker.local_addr()).await.unwrap();
    fourth.write_all(&connect(b'z')).await.unwrap();
    assert!(is_closed(&mut fourth).await);

    for (client, filter) in [(0, b'1'), (1, b'2'), (0, b'2')] {
        let subscribe = [0x82, 6, 0, 1, 0, 1, filter, 0];
        standing[client].write_all(&subscribe).await.unwrap();
        let mut suback = [0; 5];
        standing[client].read_exact(&mut suback).await.unwrap();
    }
    standing[2]
        .write_all(&[0x82, 6, 0, 1, 0, 1, b'3', 0])
        .await
        .unwrap();
    assert!(is_closed(&mut standing[2]).await);
}

#[tokio::test]
async fn a_taken_port_is_said_clearly() {
    let first = Broker::bind(config()).await.unwrap();
    let taken = BrokerConfig {
        listen: first.local_addr(),
        ..config()
    };
    let error = Broker::bind(taken).await.err().unwrap();
    assert!(matches!(error, BrokerError::PortTaken { .. }), "{error}");
    assert!(
        error.to_string().contains(&first.local_addr().to_string()),
        "{error}"
    );
    let second = Broker::bind(config()).await.unwrap();
    assert_ne!(first.local_addr(), second.local_addr());
}

#[tokio::test]
async fn shutdown_ends_the_connections_and_frees_the_port() {
    let lifecycle = Lifecycle::new();
    let broker = Broker::bind(config()).await.unwrap();
    let address = broker.local_addr();
    let mut client = connected(&broker, b'c').await;
    lifecycle.shutdown();
    broker.run(&lifecycle).await.unwrap();
    assert!(is_closed(&mut client).await);
    eventually!(SOON, {
        Broker::bind(BrokerConfig {
            listen: address,
            ..config()
        })
        .await?;
        Ok(())
    });
}
