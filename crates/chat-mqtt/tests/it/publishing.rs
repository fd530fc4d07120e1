use std::time::Duration;

use bytes::Bytes;
use chat_mqtt::{
    BrokerState, MqttConfig, NotConfirmed, Publisher, Standing, Subscriber, SubscriptionMode, Token,
};
use service_kit::lifecycle::Lifecycle;
use test_kit::{FaultProxy, Mosquitto, ensure, eventually};
use tokio::time::timeout;

use crate::fake_broker::{FakeBroker, MUTE, POISON};
use crate::outbox::publish_all;
use crate::{LARGEST, SOON, channel, config, embedded, take};

fn numbered(count: usize) -> Vec<Bytes> {
    (0..count)
        .map(|n| Bytes::from(format!("event {n}")))
        .collect()
}

async fn up(publisher: &Publisher) {
    timeout(SOON, publisher.state().wait_for(|state| state.is_up()))
        .await
        .expect("in time")
        .unwrap();
}

/// Everything published to three channels over several connections arrives in each channel's order.
async fn delivers_in_order(config: &MqttConfig, mode: SubscriptionMode, publishers: usize) {
    let lifecycle = Lifecycle::new();
    let (subscriber, mut deliveries) = Subscriber::start(config, mode, &lifecycle);
    let subscriptions: Vec<_> = (0..3).map(|n| subscriber.watch(channel(n))).collect();
    for subscription in &subscriptions {
        let mut state = subscription.state();
        let live = state.wait_for(|standing| matches!(standing, Standing::Live { .. }));
        timeout(SOON, live).await.expect("in time").unwrap();
    }
    let publisher = Publisher::start(config, publishers, LARGEST, &lifecycle);
    up(&publisher).await;
    let mut confirmations = Vec::new();
    for n in 0..300_u32 {
        let payload = Bytes::from(n.to_string());
        let confirmation = publisher.publish(Token(n.into()), channel(u128::from(n % 3)), payload);
        confirmations.push(confirmation.await);
    }
    for confirmation in confirmations {
        timeout(SOON, confirmation).await.expect("in time").unwrap();
    }
    let got = take(&mut deliveries, 300).await;
    for n in 0..3 {
        let of_channel: Vec<_> = got
            .iter()
            .filter(|delivery| delivery.channel == channel(n))
            .map(|delivery| delivery.payload.clone())
            .collect();
        let expected: Vec<_> = (0..300_u128)
            .filter(|number| number % 3 == n)
            .map(|number| Bytes::from(number.to_string()))
            .collect();
        assert_eq!(of_channel, expected);
    }
    assert_eq!(publisher.counters().confirmed, 300);
    lifecycle.shutdown();
    timeout(SOON, lifecycle.wait(SOON))
        .await
        .expect("in time")
        .unwrap();
    assert_eq!(
        deliveries.recv().await,
        None,
        "shutdown ends the deliveries"
    );
    let late = publisher
        .publish(Token(300), channel(0), Bytes::new())
        .await
        .await;
    assert_eq!(late, Err(NotConfirmed::ConnectionLost));
}

#[tokio::test]
async fn the_embedded_broker_confirms_and_delivers() {
    let broker = embedded().await;
    let config = config(broker.local_addr());
    delivers_in_order(&config, SubscriptionMode::Wildcard, 1).await;
    delivers_in_order(&config, SubscriptionMode::PerChannel { connections: 2 }, 2).await;
}

#[tokio::test]
async fn mosquitto_confirms_and_delivers() {
    let broker = Mosquitto::start().await;
    let config = config(broker.address());
    delivers_in_order(&config, SubscriptionMode::Wildcard, 2).await;
    delivers_in_order(&config, SubscriptionMode::PerChannel { connections: 2 }, 1).await;
    let qos0 = MqttConfig {
        subscribe_qos: 0,
        ..config
    };
    delivers_in_order(&qos0, SubscriptionMode::Wildcard, 1).await;
}

#[tokio::test]
async fn a_broker_killed_in_the_middle_costs_no_confirmation() {
    let mut broker = Mosquitto::start().await;
    let lifecycle = Lifecycle::new();
    let publisher = Publisher::start(&config(broker.address()), 1, LARGEST, &lifecycle);
    let payloads = numbered(30_000);
    let publishing = async { publish_all(&publisher, channel(1), &payloads).await };
    let killing = async {
        for kill in 1..=3 {
            eventually!(SOON, {
                let confirmed = publisher.counters().confirmed;
                ensure!(confirmed >= kill * 2_000, "only {confirmed} confirmed");
                Ok(())
            });
            broker.restart().await;
        }
    };
    let (aside, ()) = tokio::join!(publishing, killing);
    assert!(aside.is_empty(), "{aside:?}");
    assert!(publisher.counters().confirmed >= 30_000);
    assert!(publisher.counters().disconnects >= 1);
}

#[tokio::test]
async fn without_a_broker_publishing_fails_at_once_and_works_when_it_comes() {
    let mut broker = Mosquitto::start().await;
    broker.kill().await;
    let lifecycle = Lifecycle::new();
    let publisher = Publisher::start(&config(broker.address()), 1, LARGEST, &lifecycle);
    assert!(matches!(
        *publisher.state().borrow(),
        BrokerState::Down { .. }
    ));
    for n in 0..5_000 {
        // More than any queue holds: nothing is kept until the broker is back.
        let confirmation = publisher
            .publish(Token(n), channel(1), Bytes::from_static(b"x"))
            .await;
        let answer = timeout(SOON, confirmation).await.expect("in time");
        assert_eq!(answer, Err(NotConfirmed::ConnectionLost));
    }
    broker.restart().await;
    up(&publisher).await;
    assert!(
        publish_all(&publisher, channel(1), &numbered(10))
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn a_message_over_the_limit_is_set_aside_and_those_behind_it_go_on() {
    let broker = Mosquitto::start().await;
    let lifecycle = Lifecycle::new();
    let config = MqttConfig {
        max_packet: 2048,
        ..config(broker.address())
    };
    let publisher = Publisher::start(&config, 1, LARGEST, &lifecycle);
    let mut payloads = numbered(5);
    payloads[2] = Bytes::from(vec![b'x'; config.max_payload() + 1]);
    payloads[3] = Bytes::from(vec![b'x'; config.max_payload()]);
    assert_eq!(publish_all(&publisher, channel(1), &payloads).await, [2]);
    assert_eq!(publisher.counters().set_aside, 1);
    assert_eq!(publisher.counters().disconnects, 0);
}

#[tokio::test]
async fn a_message_that_ends_connections_is_set_aside_and_no_other() {
    let broker = FakeBroker::start().await;
    let lifecycle = Lifecycle::new();
    let publisher = Publisher::start(&config(broker.address), 1, LARGEST, &lifecycle);
    let mut payloads = numbered(3_000);
    for poison in [700, 701] {
        payloads[poison] = Bytes::from_static(POISON);
    }
    assert_eq!(
        publish_all(&publisher, channel(1), &payloads).await,
        [700, 701]
    );
    assert_eq!(publisher.counters().set_aside, 2);
    assert!(
        broker.connections() <= 9,
        "{} connections",
        broker.connections()
    );
}

#[tokio::test]
async fn a_connection_that_flaps_costs_no_message() {
    let broker = Mosquitto::start().await;
    let proxy = FaultProxy::start(broker.address()).await;
    let lifecycle = Lifecycle::new();
    let publisher = Publisher::start(&config(proxy.address()), 1, LARGEST, &lifecycle);
    let payloads = numbered(20_000);
    let publishing = async { publish_all(&publisher, channel(1), &payloads).await };
    let flapping = async {
        for cut in 1..=6 {
            eventually!(SOON, {
                let confirmed = publisher.counters().confirmed;
                ensure!(confirmed >= cut * 1_000, "only {confirmed} confirmed");
                Ok(())
            });
            proxy.cut();
        }
    };
    let (aside, ()) = tokio::join!(publishing, flapping);
    assert!(aside.is_empty(), "{aside:?}");
}

#[tokio::test]
async fn a_silent_network_is_noticed() {
    let broker = Mosquitto::start().await;
    let proxy = FaultProxy::start(broker.address()).await;
    let lifecycle = Lifecycle::new();
    let config = MqttConfig {
        keep_alive: Duration::from_secs(1),
        connect_timeout: Duration::from_secs(1),
        ..config(proxy.address())
    };
    let publisher = Publisher::start(&config, 1, LARGEST, &lifecycle);
    up(&publisher).await;
    proxy.stall();
    let confirmation = publisher
        .publish(Token(1), channel(1), Bytes::from_static(b"x"))
        .await;
    let answer = timeout(SOON, confirmation).await.expect("in time");
    assert_eq!(answer, Err(NotConfirmed::ConnectionLost));
    proxy.resume();
    assert!(
        publish_all(&publisher, channel(1), &numbered(10))
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn a_broker_that_holds_back_its_answer_is_left_but_no_message_is_set_aside() {
    let broker = FakeBroker::start().await;
    let lifecycle = Lifecycle::new();
    let config = MqttConfig {
        ack_timeout: Duration::from_millis(50),
        ..config(broker.address)
    };
    let publisher = Publisher::start(&config, 1, LARGEST, &lifecycle);
    for _attempt in 0..6 {
        up(&publisher).await;
        let payload = Bytes::from_static(MUTE);
        let confirmation = publisher.publish(Token(1), channel(1), payload).await;
        let answer = timeout(SOON, confirmation).await.expect("in time");
        assert_eq!(answer, Err(NotConfirmed::ConnectionLost));
    }
    assert_eq!(publisher.counters().set_aside, 0);
}
