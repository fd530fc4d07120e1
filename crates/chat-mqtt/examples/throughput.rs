//! Measures a broker with one publisher and one subscriber of Hark's: messages per second, the time to
//! subscribe, the time to subscribe again after the connection was cut, and the broker's memory.
//!
//! ```sh
//! cargo run --release -p chat-mqtt --example throughput -- --help
//! cargo run --release -p chat-mqtt --example throughput -- --url mqtt://127.0.0.1:1883 \
//!     --pid "$(pidof mosquitto)" --mode per-channel --channels 10000
//! ```
//!
//! Without `--url`, the embedded broker runs in the same process. Everything is QoS 1 unless an option
//! says otherwise.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use broker::{Broker, BrokerConfig};
use bytes::Bytes;
use chat_model::ChannelId;
use chat_mqtt::{
    BrokerUrls, Delivery, MqttConfig, Publisher, Standing, Subscriber, Subscription,
    SubscriptionMode, Token,
};
use clap::{Parser, ValueEnum};
use service_kit::lifecycle::Lifecycle;
use test_kit::FaultProxy;
use tokio::sync::mpsc;
use tokio::time::timeout;

type Failure = Box<dyn std::error::Error>;

/// No working broker is silent for longer than this.
const SILENCE: Duration = Duration::from_secs(60);

#[derive(Parser)]
struct Arguments {
    /// The broker, or its nodes separated by commas; without this, the embedded one.
    #[arg(long)]
    url: Option<BrokerUrls>,
    /// Where the subscriber connects, if not to the same address: another node of the cluster.
    #[arg(long)]
    subscriber_url: Option<BrokerUrls>,
    /// The broker's processes, to report their memory.
    #[arg(long, value_delimiter = ',')]
    pid: Vec<u32>,
    #[arg(long, default_value_t = 100_000)]
    messages: u64,
    #[arg(long, default_value_t = 100)]
    channels: u64,
    #[arg(long, value_enum, default_value = "wildcard")]
    mode: Mode,
    /// The subscriber's connections in per-channel mode.
    #[arg(long, default_value_t = 2)]
    connections: usize,
    /// Quality of service of subscriptions.
    #[arg(long, default_value_t = 1)]
    qos: u8,
    /// Bytes of a payload.
    #[arg(long, default_value_t = 300)]
    payload: usize,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Mode {
    Wildcard,
    PerChannel,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let embedded = match &arguments.url {
        Some(_) => None,
        None => Some(embedded().await?),
    };
    let config = MqttConfig {
        url: match (&arguments.url, &embedded) {
            (Some(url), _) => url.clone(),
            (None, Some(broker)) => broker.local_addr().into(),
            (None, None) => MqttConfig::default().url,
        },
        subscribe_qos: arguments.qos,
        ..MqttConfig::default()
    };
    let channels: Vec<ChannelId> = (1..=u128::from(arguments.channels))
        .map(|n| uuid::Uuid::from_u128(n).into())
        .collect();
    let lifecycle = Lifecycle::new();
    let publisher = Publisher::start(&config, 1, 64 * 1024, &lifecycle);
    publisher.state().wait_for(|state| state.is_up()).await?;
    let memory = |when: &str| tell_memory(when, &arguments.pid);
    memory("at first");

    let payload = Bytes::from(vec![b'x'; arguments.payload]);
    let messages = arguments.messages;
    let alone = publish(&publisher, &channels, messages, &payload).await?;
    report("publish → PUBACK, nobody subscribed", messages, alone);

    let subscriber_config = MqttConfig {
        url: arguments
            .subscriber_url
            .clone()
            .unwrap_or(config.url.clone()),
        ..config.clone()
    };
    through(
        &subscriber_config,
        &arguments,
        &channels,
        &publisher,
        &payload,
    )
    .await?;
    again_after_a_cut(&subscriber_config, &arguments, &channels).await?;
    memory("in the end");
    if let Some(complaint) = publisher.complaint() {
        println!("complaint of the publisher: {complaint}");
    }
    Ok(())
}

/// Subscribes, and publishes to it.
async fn through(
    config: &MqttConfig,
    arguments: &Arguments,
    channels: &[ChannelId],
    publisher: &Publisher,
    payload: &Bytes,
) -> Result<(), Failure> {
    let lifecycle = Lifecycle::new();
    let start = Instant::now();
    let (subscriber, mut deliveries, subscriptions) =
        subscribe(config, arguments, channels, &lifecycle);
    if !live(&subscriptions, &[]).await? {
        println!(
            "not subscribed to everything: {}",
            subscriber.complaint().unwrap_or_default()
        );
    }
    println!(
        "subscribed to {} filters in {:.2?}",
        subscriber.counters().filters,
        start.elapsed()
    );
    tell_memory("subscribed", &arguments.pid);
    let messages = arguments.messages;
    let start = Instant::now();
    let receive = async {
        let (mut received, mut last) = (0, start);
        while received < messages {
            match timeout(SILENCE, deliveries.recv()).await {
                Ok(Some(batch)) => received += batch.len() as u64,
                _ => break,
            }
            last = Instant::now();
        }
        (received, last - start)
    };
    let (confirmed, (received, delivered)) =
        tokio::join!(publish(publisher, channels, messages, payload), receive);
    report("publish → PUBACK, one subscriber", messages, confirmed?);
    report("publish → delivery", received, delivered);
    if received < messages {
        println!("lost: {}", messages - received);
    }
    tell_memory("after the messages", &arguments.pid);
    lifecycle.shutdown();
    Ok(lifecycle.wait(SILENCE).await?)
}

/// Subscribes, cuts all connections, and waits until everything is subscribed again.
async fn again_after_a_cut(
    config: &MqttConfig,
    arguments: &Arguments,
    channels: &[ChannelId],
) -> Result<(), Failure> {
    let url = &config.url.all()[0];
    let broker: SocketAddr = format!("{}:{}", url.host(), url.port()).parse()?;
    let proxy = FaultProxy::start(broker).await;
    let config = MqttConfig {
        url: proxy.address().into(),
        ..config.clone()
    };
    let lifecycle = Lifecycle::new();
    let (_subscriber, _deliveries, subscriptions) =
        subscribe(&config, arguments, channels, &lifecycle);
    if !live(&subscriptions, &[]).await? {
        return Ok(());
    }
    let before: Vec<u64> = subscriptions
        .iter()
        .map(|subscription| match *subscription.state().borrow() {
            Standing::Live { since } => since,
            Standing::Pending | Standing::BrokerAway { .. } => 0,
        })
        .collect();
    let start = Instant::now();
    proxy.cut();
    let again = live(&subscriptions, &before).await?;
    println!(
        "after a cut, {} again in {:.2?}",
        if again {
            "subscribed"
        } else {
            "NOT subscribed"
        },
        start.elapsed()
    );
    Ok(())
}

async fn embedded() -> Result<Broker, Failure> {
    Ok(Broker::bind(BrokerConfig {
        listen: "127.0.0.1:0".parse()?,
        // One address may use half.
        max_filters: 400_000,
        max_topics: 400_000,
        max_subscriptions: 400_000,
        segment_size: 64 << 20,
        ..BrokerConfig::default()
    })
    .await?)
}

fn subscribe(
    config: &MqttConfig,
    arguments: &Arguments,
    channels: &[ChannelId],
    lifecycle: &Lifecycle,
) -> (Subscriber, mpsc::Receiver<Vec<Delivery>>, Vec<Subscription>) {
    let mode = match arguments.mode {
        Mode::Wildcard => SubscriptionMode::Wildcard,
        Mode::PerChannel => SubscriptionMode::PerChannel {
            connections: arguments.connections,
        },
    };
    let (subscriber, deliveries) = Subscriber::start(config, mode, lifecycle);
    let subscriptions = channels
        .iter()
        .map(|channel| subscriber.watch(*channel))
        .collect();
    (subscriber, deliveries, subscriptions)
}

/// Waits until each subscription is live in a later generation than in `after`; false if the broker is
/// silent.
async fn live(subscriptions: &[Subscription], after: &[u64]) -> Result<bool, Failure> {
    let after = after.iter().copied().chain(std::iter::repeat(0));
    for (subscription, after) in subscriptions.iter().zip(after) {
        let mut state = subscription.state();
        let live = state
            .wait_for(|standing| matches!(standing, Standing::Live { since } if *since > after));
        match timeout(SILENCE, live).await {
            Ok(live) => drop(live?),
            Err(_elapsed) => return Ok(false),
        }
    }
    Ok(true)
}

async fn publish(
    publisher: &Publisher,
    channels: &[ChannelId],
    messages: u64,
    payload: &Bytes,
) -> Result<Duration, chat_mqtt::NotConfirmed> {
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

fn tell_memory(when: &str, pids: &[u32]) {
    for pid in pids {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let resident = status.lines().find(|line| line.starts_with("VmRSS:"));
        println!("memory of {pid}, {when}: {}", resident.unwrap_or("unknown"));
    }
}
