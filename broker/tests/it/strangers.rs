//! What strangers send must not cost anyone else anything.

use broker::{Broker, BrokerConfig, BrokerError};
use service_kit::lifecycle::Lifecycle;
use test_kit::{eventually, mqtt_publish};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::{
    SOON, config, connect, connected, heard_by_router, is_closed, subscribe, subscribed,
};

#[tokio::test]
async fn packets_that_harm_end_their_own_connection_only() {
    let broker = Broker::bind(config()).await.unwrap();
    let subscriber = connected(&broker, b's').await;
    let mut subscriber = subscribe(subscriber, b"chat/+", 0, 0).await;

    let hostile: [&[u8]; 15] = [
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
        // PUBACK and PUBREC of nothing, a filter that begins with $, and a SUBACK.
        b"\x40\x02\x00\x07",
        b"\x50\x02\x00\x07",
        b"\x82\x07\x00\x02\x00\x02$x\x00",
        b"\x90\x03\x00\x02\x00",
    ];
    for (number, packet) in hostile.into_iter().enumerate() {
        let mut stranger = connected(&broker, b'A' + u8::try_from(number).unwrap()).await;
        stranger.write_all(packet).await.unwrap();
        assert!(is_closed(&mut stranger).await, "{packet:02x?}");
    }
    // A will on "é": closed without CONNACK.
    let will = b"\x10\x14\x00\x04MQTT\x04\x06\x00\x3c\x00\x01w\x00\x02\xc3\xa9\x00\x01!";
    for _again in 0..2 {
        let mut stranger = TcpStream::connect(broker.local_addr()).await.unwrap();
        stranger.write_all(will).await.unwrap();
        assert!(is_closed(&mut stranger).await);
    }

    mqtt_publish(broker.local_addr(), "chat/x", b"still here").await;
    let mut got = vec![0; 2 + 2 + 6 + 10];
    subscriber.read_exact(&mut got).await.unwrap();
    assert!(got.ends_with(b"chat/xstill here"), "{got:?}");
}

#[tokio::test]
async fn connections_are_bounded() {
    let broker = Broker::bind(BrokerConfig {
        max_connections: 3,
        ..config()
    })
    .await
    .unwrap();
    let mut standing = Vec::new();
    for number in b'a'..=b'c' {
        // One that has done nothing would give way.
        standing.push(subscribed(&broker, number, b't').await);
    }
    let mut fourth = TcpStream::connect(broker.local_addr()).await.unwrap();
    fourth.write_all(&connect(b'z')).await.unwrap();
    assert!(is_closed(&mut fourth).await);
    for client in &mut standing {
        client.write_all(&[0xc0, 0]).await.unwrap();
        client.read_exact(&mut [0; 2]).await.unwrap();
    }
}

#[tokio::test]
async fn filters_subscriptions_and_topics_are_bounded() {
    let broker = Broker::bind(BrokerConfig {
        max_filters: 6,
        max_subscriptions: 8,
        max_topics: 4,
        ..config()
    })
    .await
    .unwrap();
    let mut honest = subscribed(&broker, b'h', b'1').await;
    // As many as are still free, of all connections together.
    let mut filters = subscribed(&broker, b'f', b'2').await;
    for filter in b"1323" {
        filters = subscribe(filters, &[*filter], 0, 0).await;
    }
    filters
        .write_all(b"\x82\x06\x00\x01\x00\x014\x00")
        .await
        .unwrap();
    assert!(is_closed(&mut filters).await);
    let mut topics = connected(&broker, b't').await;
    let publish = |topic| [0x30, 4, 0, 1, topic, b'!'];
    for topic in b"12121" {
        topics.write_all(&publish(*topic)).await.unwrap();
    }
    topics.write_all(&publish(b'3')).await.unwrap();
    assert!(is_closed(&mut topics).await);
    // Nobody else is, and what the router knows costs nothing more.
    let mut got = [0; 3 * 6];
    honest.read_exact(&mut got).await.unwrap();
    assert_eq!(got, b"\x30\x04\x00\x011!".repeat(3)[..]);
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
    broker.run(&lifecycle).await;
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

/// A connection that ends by RST, as that of a device that loses its power behind a gateway does.
async fn connect_and_reset(broker: &Broker, client_id: u8) {
    let mut stream = TcpStream::connect(broker.local_addr()).await.unwrap();
    stream.write_all(&connect(client_id)).await.unwrap();
    stream.set_zero_linger().unwrap();
}

#[tokio::test]
async fn client_that_is_reset_while_it_connects_can_come_back() {
    let broker = Broker::bind(config()).await.unwrap();
    for _ in 0..200 {
        connect_and_reset(&broker, b'd').await;
    }
    let mut device = connected(&broker, b'd').await;
    // The router lives, and the resets before were not taken for this one.
    heard_by_router(&mut device).await;
    mqtt_publish(broker.local_addr(), "chat/x", b"still here").await;
}

#[tokio::test]
async fn second_connect_with_an_id_ends_the_first_and_publishes_its_will() {
    let broker = Broker::bind(config()).await.unwrap();
    let mut watcher = subscribed(&broker, b'w', b't').await;
    // CONNECT as "d" with the will "!" on "t".
    let mut first = TcpStream::connect(broker.local_addr()).await.unwrap();
    first
        .write_all(b"\x10\x13\x00\x04MQTT\x04\x06\x00\x3c\x00\x01d\x00\x01t\x00\x01!")
        .await
        .unwrap();
    first.read_exact(&mut [0; 4]).await.unwrap();
    let _second = connected(&broker, b'd').await;
    assert!(is_closed(&mut first).await);
    let mut will = [0; 6];
    watcher.read_exact(&mut will).await.unwrap();
    assert_eq!(&will, b"\x30\x04\x00\x01t!");
}

#[tokio::test]
async fn busy_subscriber_that_answers_nonsense_harms_only_itself() {
    let broker = Broker::bind(config()).await.unwrap();
    let mut honest = connected(&broker, b'h').await;
    for round in 0..20 {
        // It subscribes, does not read, and acknowledges what it never got, while the router has
        // more for it than its queue takes.
        let mut stranger = subscribed(&broker, b'0' + round, b't').await;
        let flood = b"\x30\x04\x00\x01t!".repeat(1000);
        honest.write_all(&flood).await.unwrap();
        let _closed_already = stranger.write_all(b"\x40\x02\x00\x07").await;
        assert!(is_closed(&mut stranger).await);
    }
    heard_by_router(&mut honest).await;
    mqtt_publish(broker.local_addr(), "chat/x", b"still here").await;
}

#[tokio::test]
async fn connections_that_do_nothing_give_way() {
    let broker = Broker::bind(BrokerConfig {
        max_connections: 4,
        max_connections_per_address: 4,
        ..config()
    })
    .await
    .unwrap();
    let mut silent = Vec::new();
    for _ in 0..1000 {
        silent.push(TcpStream::connect(broker.local_addr()).await.unwrap());
    }
    let mut idle = Vec::new();
    for number in 0..100 {
        idle.push(connected(&broker, number).await);
    }
    let mut working = subscribed(&broker, b'w', b't').await;
    for number in 100..110 {
        idle.push(connected(&broker, number).await);
    }
    mqtt_publish(broker.local_addr(), "t", b"!").await;
    let mut got = [0; 6];
    working.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"\x30\x04\x00\x01t!");
    assert!(is_closed(&mut idle[0]).await);
    assert!(is_closed(&mut silent[0]).await);
}

#[tokio::test]
async fn message_of_qos_2_arrives_once() {
    let broker = Broker::bind(config()).await.unwrap();
    let subscriber = connected(&broker, b's').await;
    let mut subscriber = subscribe(subscriber, b"t", 2, 1).await;
    let mut sender = connected(&broker, b'p').await;
    for payload in [b'1', b'2'] {
        let publish = [0x34, 6, 0, 1, b't', 0, 9, payload];
        sender.write_all(&publish.repeat(2)).await.unwrap();
        let mut received = [0; 8];
        sender.read_exact(&mut received).await.unwrap();
        assert_eq!(received, [0x50, 2, 0, 9, 0x50, 2, 0, 9]);
        sender.write_all(&[0x62, 2, 0, 9]).await.unwrap();
        let mut complete = [0; 4];
        sender.read_exact(&mut complete).await.unwrap();
        assert_eq!(complete, [0x70, 2, 0, 9]);
        let mut got = [0; 8];
        subscriber.read_exact(&mut got).await.unwrap();
        assert_eq!(&got[..2], &[0x32, 6]);
        assert_eq!(got[7], payload);
        subscriber
            .write_all(&[0x40, 2, got[5], got[6]])
            .await
            .unwrap();
    }
}
