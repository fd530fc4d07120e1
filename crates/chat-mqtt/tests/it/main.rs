//! Tests of publisher and subscriber with real brokers: the embedded one and mosquitto.

mod fake_broker;
mod outbox;
mod publishing;
mod subscribing;
mod tls;

use std::net::SocketAddr;
use std::time::Duration;

use broker::{Broker, BrokerConfig};
use chat_model::ChannelId;
use chat_mqtt::{Delivery, MqttConfig};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Far longer than anything here takes, even on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// More than what is published here.
const LARGEST: usize = 64 * 1024;

/// Short waits, so that tests of lost connections are quick.
fn config(broker: SocketAddr) -> MqttConfig {
    MqttConfig {
        url: broker.into(),
        keep_alive: Duration::from_secs(5),
        ..MqttConfig::default()
    }
}

async fn embedded() -> Broker {
    let config = BrokerConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        // One address may use half of them.
        max_filters: 5000,
        ..BrokerConfig::default()
    };
    Broker::bind(config).await.unwrap()
}

fn channel(n: u128) -> ChannelId {
    uuid::Uuid::from_u128(n).into()
}

/// Takes deliveries until `count` have arrived.
async fn take(deliveries: &mut mpsc::Receiver<Vec<Delivery>>, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let batch = timeout(SOON, deliveries.recv()).await.expect("in time");
        taken.extend(batch.expect("not shut down"));
    }
    taken
}
