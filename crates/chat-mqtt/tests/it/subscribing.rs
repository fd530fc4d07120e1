use std::time::Duration;

use bytes::Bytes;
use chat_model::{ChannelId, TopicPrefix};
use chat_mqtt::{
    Delivery, MqttConfig, Publisher, Standing, Subscriber, Subscription, SubscriptionMode,
};
use service_kit::lifecycle::Lifecycle;
use test_kit::{FaultProxy, Mosquitto, Program, ensure, eventually, mqtt_publish};
use tokio::time::timeout;

use crate::outbox::publish_all;
use crate::{LARGEST, SOON, channel, config, embedded, take};

const PER_CHANNEL: SubscriptionMode = SubscriptionMode::PerChannel { connections: 2 };

/// Waits until the channel is live in a generation later than `after`; returns that generation.
async fn live(subscription: &Subscription, after: u64) -> u64 {
    let mut state = subscription.state();
    let live =
        state.wait_for(|standing| matches!(standing, Standing::Live { since } if *since > after));
    match *timeout(SOON, live).await.expect("in time").unwrap() {
        Standing::Live { since } => since,
        other => unreachable!("waited for it: {other:?}"),
    }
}

fn topic(channel: ChannelId) -> String {
    TopicPrefix::default().topic(channel)
}

async fn two_thousand_channels(config: &MqttConfig) -> (Subscriber, Vec<Subscription>, Lifecycle) {
    let lifecycle = Lifecycle::new();
    let (subscriber, mut deliveries) = Subscriber::start(config, PER_CHANNEL, &lifecycle);
    let subscriptions: Vec<_> = (0..2_000).map(|n| subscriber.watch(channel(n))).collect();
    for subscription in &subscriptions {
        live(subscription, 0).await;
    }
    assert_eq!(
        subscriber.counters().filters,
        2_000 + 2,
        "and the heartbeats of two connections"
    );
    let publisher = Publisher::start(config, 1, LARGEST, &lifecycle);
    for n in [0, 999, 1_999] {
        publish_all(&publisher, channel(n), &[Bytes::from(n.to_string())]).await;
        let expected = Delivery {
            channel: channel(n),
            payload: Bytes::from(n.to_string()),
        };
        assert_eq!(take(&mut deliveries, 1).await, [expected]);
    }
    (subscriber, subscriptions, lifecycle)
}

#[tokio::test]
async fn two_thousand_channels_are_live_again_after_the_broker_was_killed() {
    let mut broker = Mosquitto::start().await;
    let (subscriber, subscriptions, _lifecycle) =
        two_thousand_channels(&config(broker.address())).await;
    let mut before = Vec::new();
    for subscription in &subscriptions {
        before.push(live(subscription, 0).await);
    }
    broker.kill().await;
    for subscription in &subscriptions {
        let mut state = subscription.state();
        let away = state.wait_for(|standing| matches!(standing, Standing::BrokerAway { .. }));
        timeout(SOON, away).await.expect("in time").unwrap();
    }
    assert!(!subscriber.state().borrow().is_up());
    broker.restart().await;
    for (subscription, before) in subscriptions.iter().zip(before) {
        assert!(live(subscription, before).await > before);
    }
    assert_eq!(subscriber.counters().refused_subscriptions, 0);
}

#[tokio::test]
async fn two_thousand_channels_are_live_on_the_embedded_broker() {
    let broker = embedded().await;
    two_thousand_channels(&config(broker.local_addr())).await;
}

#[tokio::test]
async fn the_wildcard_comes_back_after_every_cut() {
    let broker = embedded().await;
    let proxy = FaultProxy::start(broker.local_addr()).await;
    let lifecycle = Lifecycle::new();
    let config = config(proxy.address());
    let (subscriber, mut deliveries) =
        Subscriber::start(&config, SubscriptionMode::Wildcard, &lifecycle);
    let subscription = subscriber.watch(channel(1));
    let mut generation = 0;
    for round in 0..5 {
        generation = live(&subscription, generation).await;
        let other = subscriber.watch(channel(2));
        assert_eq!(
            *other.state().borrow(),
            Standing::Live { since: generation }
        );
        let payload = format!("round {round}");
        mqtt_publish(broker.local_addr(), &topic(channel(2)), payload.as_bytes()).await;
        assert_eq!(take(&mut deliveries, 1).await[0].payload, payload);
        proxy.cut();
    }
    assert!(subscriber.counters().disconnects >= 4);
}

#[tokio::test]
async fn without_a_broker_channels_wait_and_become_live_when_it_comes() {
    let mut broker = Mosquitto::start().await;
    broker.kill().await;
    let lifecycle = Lifecycle::new();
    let (subscriber, _deliveries) =
        Subscriber::start(&config(broker.address()), PER_CHANNEL, &lifecycle);
    let subscription = subscriber.watch(channel(1));
    assert!(matches!(
        *subscription.state().borrow(),
        Standing::BrokerAway { .. }
    ));
    broker.restart().await;
    live(&subscription, 0).await;
}

#[tokio::test]
async fn a_channel_is_left_after_its_linger_and_comes_back_when_watched() {
    let broker = Mosquitto::start().await;
    let lifecycle = Lifecycle::new();
    let config = MqttConfig {
        linger: Duration::from_millis(20),
        ..config(broker.address())
    };
    let mode = SubscriptionMode::PerChannel { connections: 1 };
    let (subscriber, mut deliveries) = Subscriber::start(&config, mode, &lifecycle);
    let stays = subscriber.watch(channel(1));
    let leaves = subscriber.watch(channel(2));
    live(&stays, 0).await;
    live(&leaves, 0).await;
    drop(leaves);
    eventually!(SOON, {
        // The message for the channel that stays shows that the other one was not delivered.
        mqtt_publish(broker.address(), &topic(channel(2)), b"unheard").await;
        mqtt_publish(broker.address(), &topic(channel(1)), b"heard").await;
        let got = deliveries.recv().await.ok_or("shut down")?;
        let heard: Vec<_> = got.iter().map(|delivery| delivery.channel).collect();
        ensure!(heard == [channel(1)], "{heard:?}");
        Ok(())
    });
    assert_eq!(subscriber.counters().filters, 2, "and the heartbeats");
    for round in 0..50 {
        // In every state of leaving: at once, while lingering, after the UNSUBSCRIBE.
        let again = subscriber.watch(channel(2));
        live(&again, 0).await;
        let payload = format!("round {round}");
        mqtt_publish(broker.address(), &topic(channel(2)), payload.as_bytes()).await;
        loop {
            let got = take(&mut deliveries, 1).await;
            if got.iter().any(|delivery| delivery.payload == payload) {
                break;
            }
        }
        drop(again);
        if round % 3 == 0 {
            eventually!(SOON, {
                ensure!(subscriber.counters().filters == 2, "it lingers");
                Ok(())
            });
        }
    }
}

#[tokio::test]
async fn what_is_foreign_or_too_large_is_counted_and_ends_nothing() {
    let broker = Mosquitto::start().await;
    let lifecycle = Lifecycle::new();
    let config = MqttConfig {
        max_packet: 2048,
        ..config(broker.address())
    };
    let (subscriber, mut deliveries) =
        Subscriber::start(&config, SubscriptionMode::Wildcard, &lifecycle);
    let subscription = subscriber.watch(channel(1));
    live(&subscription, 0).await;
    for _ in 0..3 {
        mqtt_publish(broker.address(), &topic(channel(1)), &[b'x'; 300_000]).await;
        mqtt_publish(broker.address(), "chat/now", b"foreign").await;
        mqtt_publish(broker.address(), &topic(channel(1)), b"ours").await;
        assert_eq!(take(&mut deliveries, 1).await[0].payload, "ours");
    }
    let counters = subscriber.counters();
    assert_eq!(
        (
            counters.oversize,
            counters.foreign_topics,
            counters.disconnects
        ),
        (3, 3, 0)
    );
}

#[tokio::test]
async fn a_slow_consumer_pauses_reading_and_gets_everything_in_order() {
    let broker = Mosquitto::start().await;
    let lifecycle = Lifecycle::new();
    let slow = MqttConfig {
        receive_buffer: 1,
        ..config(broker.address())
    };
    let (subscriber, mut deliveries) =
        Subscriber::start(&slow, SubscriptionMode::Wildcard, &lifecycle);
    live(&subscriber.watch(channel(1)), 0).await;
    let publisher = Publisher::start(&slow, 1, LARGEST, &lifecycle);
    let payloads: Vec<_> = (0..20_000)
        .map(|n| Bytes::from(format!("{n:0>500}")))
        .collect();
    // 10 MB: far more than one batch and the sockets can hold. All of it is confirmed first.
    assert!(
        publish_all(&publisher, channel(1), &payloads)
            .await
            .is_empty()
    );
    let got = take(&mut deliveries, payloads.len()).await;
    assert!(got.iter().map(|delivery| &delivery.payload).eq(&payloads));
    assert_eq!(subscriber.counters().disconnects, 0);
}

/// Rules for mosquitto's dynamic security plugin: everyone may do everything, except that they may
/// subscribe only to the given topic.
fn rules(may_subscribe: &str) -> String {
    format!(
        r##"{{"defaultACLAccess":{{"publishClientSend":true,"publishClientReceive":true,"subscribe":false,"unsubscribe":true}},
        "clients":[],"anonymousGroup":"all","groups":[{{"groupname":"all","roles":[{{"rolename":"all"}}],"clients":[]}}],
        "roles":[{{"rolename":"all","acls":[{{"acltype":"subscribePattern","topic":"{may_subscribe}","allow":true,"priority":1}}]}}]}}"##
    )
}

#[tokio::test]
async fn a_refused_channel_stays_pending_until_the_broker_takes_it() {
    const PLUGIN: &str = "/usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so";
    assert!(
        std::path::Path::new(PLUGIN).exists(),
        "install the Debian package mosquitto (2.0 or newer)"
    );
    let folder = tempfile::tempdir().unwrap();
    let rules_file = folder.path().join("rules.json");
    std::fs::write(&rules_file, rules(&topic(channel(1)))).unwrap();
    let address = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let conf = folder.path().join("mosquitto.conf");
    let text = format!(
        "listener {} 127.0.0.1\nallow_anonymous true\nuser root\nplugin {PLUGIN}\nplugin_opt_config_file {}\n",
        address.port(),
        rules_file.display()
    );
    std::fs::write(&conf, text).unwrap();
    let start = || {
        Program::of_system("mosquitto", "mosquitto")
            .arg("-c")
            .arg(&conf)
            .spawn()
    };

    let mut broker = start();
    let lifecycle = Lifecycle::new();
    let (subscriber, _deliveries) = Subscriber::start(&config(address), PER_CHANNEL, &lifecycle);
    let allowed = subscriber.watch(channel(1));
    let refused = subscriber.watch(channel(2));
    live(&allowed, 0).await;
    eventually!(SOON, {
        // It is requested again and again, although the first answer was final for others.
        let count = subscriber.counters().refused_subscriptions;
        ensure!(count >= 2, "{count} refused");
        Ok(())
    });
    assert_eq!(*refused.state().borrow(), Standing::Pending);
    assert!(matches!(*allowed.state().borrow(), Standing::Live { .. }));

    broker.kill().await;
    std::fs::write(&rules_file, rules("chat/#")).unwrap();
    let _broker = start();
    live(&refused, 0).await;
}
