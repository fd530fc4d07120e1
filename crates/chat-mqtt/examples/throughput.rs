//! Messages per second through the embedded broker: publish → PUBACK, and publish → delivery.
//!
//! `cargo run --release -p chat-mqtt --example throughput [messages [channels [mqtt://host:port]]]`
//!
//! One process: one publisher and one subscriber connection, wildcard, QoS 1, 300-byte payloads.

use std::time::{Duration, Instant};

use broker::{Broker, BrokerConfig};
use bytes::Bytes;
use chat_mqtt::{MqttConfig, Publisher, Standing, Subscriber, SubscriptionMode, Token};
use service_kit::lifecycle::Lifecycle;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u64| {
        arguments
            .next()
            .map_or(Ok(default), |argument| argument.parse::<u64>())
    };
    let (messages, channels) = (number(200_000)?, number(100)?);
    let broker = Broker::bind(BrokerConfig {
        listen: "127.0.0.1:0".parse()?,
        segment_size: 64 << 20,
        ..BrokerConfig::default()
    })
    .await?;
    let url = match arguments.next() {
        Some(url) => url.parse()?,
        None => broker.local_addr().into(),
    };
    let config = MqttConfig {
        url,
        ..MqttConfig::default()
    };
    let lifecycle = Lifecycle::new();
    let publisher = Publisher::start(&config, 1, 64 * 1024, &lifecycle);
    publisher.state().wait_for(|state| state.is_up()).await?;
    let channels: Vec<_> = (1..=u128::from(channels))
        .map(|n| uuid::Uuid::from_u128(n).into())
        .collect();

    let alone = publish(&publisher, &channels, messages).await?;
    report("publish → PUBACK, nobody subscribed", messages, alone);

    let (subscriber, mut deliveries) =
        Subscriber::start(&config, SubscriptionMode::Wildcard, &lifecycle);
    let subscription = subscriber.watch(channels[0]);
    subscription
        .state()
        .wait_for(|standing| matches!(standing, Standing::Live { .. }))
        .await?;
    let start = Instant::now();
    let receive = async {
        let mut received = 0;
        while received < messages {
            match tokio::time::timeout(Duration::from_secs(10), deliveries.recv()).await {
                Ok(Some(batch)) => received += batch.len() as u64,
                _ => break,
            }
        }
        (received, start.elapsed())
    };
    let (confirmed, (received, delivered)) =
        tokio::join!(publish(&publisher, &channels, messages), receive);
    report("publish → PUBACK, one subscriber", messages, confirmed?);
    report("publish → delivery", received, delivered);
    Ok(())
}

async fn publish(
    publisher: &Publisher,
    channels: &[chat_model::ChannelId],
    messages: u64,
) -> Result<Duration, chat_mqtt::NotConfirmed> {
    let payload = Bytes::from(vec![b'x'; 300]);
    let start = Instant::now();
    let mut confirmations = std::collections::VecDeque::new();
    for (n, channel) in (0..messages).zip(channels.iter().cycle()) {
        let confirmation = publisher.publish(Token(n), *channel, payload.clone());
        confirmations.push_back(confirmation.await);
        if confirmations.len() > 4_000
            && let Some(oldest) = confirmations.pop_front()
        {
            oldest.await?;
        }
    }
    for confirmation in confirmations {
        confirmation.await?;
    }
    Ok(start.elapsed())
}

fn report(what: &str, messages: u64, took: Duration) {
    let rate = messages as f64 / took.as_secs_f64();
    println!("{what}: {messages} in {took:.2?}, {rate:.0} messages/s");
}
