use bytes::Bytes;
use chat_mqtt::{BrokerState, MqttConfig, Publisher, Standing, Subscriber, SubscriptionMode};
use service_kit::config::Secret;
use service_kit::lifecycle::Lifecycle;
use test_kit::{FaultProxy, Mosquitto, ensure, eventually};
use tokio::time::timeout;

use crate::outbox::publish_all;
use crate::{LARGEST, SOON, channel, config, take};

fn guarded(broker: &Mosquitto, url: &str, user: &str) -> MqttConfig {
    let authority = broker.certificates().authority();
    MqttConfig {
        url: url.parse().unwrap(),
        ca_file: authority.to_str().unwrap().to_owned(),
        username: user.to_owned(),
        password: Secret::new(Mosquitto::PASSWORD.to_owned()),
        ..config(broker.address())
    }
}

#[tokio::test]
async fn over_tls_a_slow_consumer_gets_everything_in_order_through_cuts() {
    let broker = Mosquitto::start_guarded().await;
    let proxy = FaultProxy::start(broker.address()).await;
    let url = format!("mqtts://localhost:{}", proxy.address().port());
    let lifecycle = Lifecycle::new();
    let slow = MqttConfig {
        receive_buffer: 1,
        ..guarded(&broker, &broker.url(), "broadcast-sse")
    };
    let (subscriber, mut deliveries) =
        Subscriber::start(&slow, SubscriptionMode::Wildcard, &lifecycle);
    let mut state = subscriber.watch(channel(1)).state();
    let live = state.wait_for(|standing| matches!(standing, Standing::Live { .. }));
    timeout(SOON, live).await.expect("in time").unwrap();

    let config = guarded(&broker, &url, "chat-service");
    let publisher = Publisher::start(&config, 1, LARGEST, &lifecycle);
    let payloads: Vec<_> = (0..20_000)
        .map(|n| Bytes::from(format!("{n:0>500}")))
        .collect();
    // 10 MB in each direction: TLS has its own buffers, which must neither grow nor stall.
    let publishing = publish_all(&publisher, channel(1), &payloads);
    let cutting = async {
        for cut in 1..=3 {
            eventually!(SOON, {
                let confirmed = publisher.counters().confirmed;
                ensure!(confirmed >= cut * 3_000, "only {confirmed} confirmed");
                Ok(())
            });
            proxy.cut();
        }
    };
    let (aside, ()) = tokio::join!(publishing, cutting);
    assert!(aside.is_empty(), "{aside:?}");
    // Some arrive twice, because they were published again.
    let mut next = 0;
    while next < payloads.len() {
        for delivery in take(&mut deliveries, 1).await {
            if delivery.payload == payloads[next] {
                next += 1;
            } else {
                assert!(
                    payloads[..next].contains(&delivery.payload),
                    "a gap at {next}"
                );
            }
        }
    }
    assert_eq!(subscriber.counters().disconnects, 0);
    assert_eq!(subscriber.complaint(), None);
    assert_eq!(publisher.complaint(), None);
    assert_eq!(publisher.heartbeats().len(), 1);
}

#[tokio::test]
async fn a_list_of_addresses_is_gone_through_until_one_answers() {
    let mut broker = Mosquitto::start().await;
    let dead = "mqtt://127.0.0.1:9,mqtt://127.0.0.1:7,mqtt://127.0.0.1:11";
    let config = MqttConfig {
        url: format!("{dead},{}", broker.url()).parse().unwrap(),
        ..config(broker.address())
    };
    let lifecycle = Lifecycle::new();
    let publisher = Publisher::start(&config, 4, LARGEST, &lifecycle);
    let mut state = publisher.state();
    for _ in 0..2 {
        let up = state.wait_for(|state| state.is_up());
        timeout(SOON, up).await.expect("in time").unwrap();
        broker.kill().await;
        let down = state.wait_for(|state| matches!(state, BrokerState::Down { .. }));
        timeout(SOON, down).await.expect("in time").unwrap();
        eventually!(SOON, {
            let complaint = publisher.complaint().ok_or("no complaint")?;
            ensure!(complaint.contains("cannot connect"), "{complaint}");
            Ok(())
        });
        broker.restart().await;
    }
}
