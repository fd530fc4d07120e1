//! Clients that take what they are sent slowly, or not at all.

use broker::{Broker, BrokerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::{SOON, config, connected, heard_by_router, narrow, subscribed};

/// PUBLISH of QoS 0 to a topic of one byte (MQTT 3.1.1 §3.3).
fn large_publish(topic: u8) -> Vec<u8> {
    // 400,003 in seven bits each.
    let mut packet = vec![0x30, 0x83, 0xb5, 0x18, 0, 1, topic];
    packet.resize(packet.len() + 400_000, b'!');
    packet
}

/// Bytes that this system keeps at most of what a connection has not been sent yet.
fn kept_by_system() -> usize {
    let sizes = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_wmem").unwrap();
    let most = sizes.split_whitespace().last().unwrap();
    most.parse().unwrap()
}

/// A broker that keeps what [`send_much`] sends.
async fn bind() -> Broker {
    let config = config();
    Broker::bind(BrokerConfig {
        segments: 16 + kept_by_system() / config.segment_size,
        ..config
    })
    .await
    .unwrap()
}

/// Has large packets for whoever has subscribed to `t`, and says how many: more than the system keeps
/// for one connection.
async fn send_much(broker: &Broker) -> usize {
    let packet = large_publish(b't');
    let count = (kept_by_system() + (8 << 20)) / packet.len();
    let mut sender = connected(broker, b'p').await;
    for _ in 0..count {
        sender.write_all(&packet).await.unwrap();
    }
    heard_by_router(&mut sender).await;
    count
}

#[tokio::test]
async fn client_that_takes_nothing_of_what_it_is_sent_is_heard() {
    let broker = bind().await;
    let mut watcher = subscribed(&broker, b'w', b'u').await;
    let mut slow = narrow(&broker, b's', b't').await;
    let sent = send_much(&broker).await;
    for _ in 0..3 {
        slow.write_all(b"\x30\x04\x00\x01u!").await.unwrap();
        let mut got = [0; 6];
        let heard = timeout(SOON, watcher.read_exact(&mut got)).await;
        heard.expect("in time").unwrap();
        assert_eq!(&got, b"\x30\x04\x00\x01u!");
    }
    // And has lost nothing.
    let expected = large_publish(b't');
    let mut got = vec![0; expected.len()];
    for _ in 0..sent {
        slow.read_exact(&mut got).await.unwrap();
        assert!(got == expected);
    }
}

/// Takes a packet of up to 2 MiB: its type and flags.
async fn take_packet(stream: &mut TcpStream) -> u8 {
    let first = stream.read_u8().await.unwrap();
    let mut length = 0;
    for place in 0..3 {
        let byte = stream.read_u8().await.unwrap();
        length |= usize::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            break;
        }
    }
    stream.read_exact(&mut vec![0; length]).await.unwrap();
    first
}

#[tokio::test]
async fn pings_are_answered_before_what_the_broker_still_has() {
    let broker = bind().await;
    let mut slow = narrow(&broker, b's', b't').await;
    let sent = send_much(&broker).await;
    slow.write_all(&[0xc0, 0]).await.unwrap();
    let mut before = 0;
    while take_packet(&mut slow).await != 0xd0 {
        before += 1;
    }
    assert!(before < sent, "behind all {before}");
}
