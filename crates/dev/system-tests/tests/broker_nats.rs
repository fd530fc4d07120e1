//! A NATS cluster, within its limits and beyond one of them.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use system_tests::{Load, Node, Sender, broker_is_well, broker_trouble, new_channel};
use test_kit::{BrokerCluster, Recording};

const SOON: Duration = Duration::from_secs(20);

/// Subscriptions of quality 1 that NATS 2.9 takes on one connection.
const LIMIT: usize = 64;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_carries_everything_and_a_node_may_die() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = BrokerCluster::nats(3).await;
    let chat = Node::chat_service(&cluster.urls(), &folder.path().join("store"))
        .started()
        .await;
    let sse = |mode: &str, qos: &str| {
        Node::broadcast_sse(&cluster.urls(), &chat.url())
            .env("HARK_SUBSCRIBE__MODE", mode)
            .env("HARK_MQTT__SUBSCRIBE_QOS", qos)
    };
    let nodes = [
        sse("wildcard", "1").started().await,
        sse("per-channel", "0").started().await,
    ];
    let sender = Sender::to(chat.url());
    for node in nodes.iter().chain([&chat]) {
        broker_is_well(node).await;
    }
    let next = AtomicUsize::new(0);
    let load = Load::start(&sender, |channel| {
        let node = &nodes[next.fetch_add(1, Relaxed) % nodes.len()];
        format!("{}/events?c={channel}", node.url())
    })
    .await;
    load.wait_for_posts(Load::POSTS / 4).await;
    cluster.kill(0).await;
    load.verify().await;
    for node in nodes.iter().chain([&chat]) {
        broker_is_well(node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_its_limit_of_subscriptions_channels_come_from_the_store_and_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let broker = BrokerCluster::nats(1).await;
    let chat = Node::chat_service(&broker.urls(), &folder.path().join("store"))
        .started()
        .await;
    let sse = Node::broadcast_sse(&broker.urls(), &chat.url())
        .env("HARK_SUBSCRIBE__MODE", "per-channel")
        .env("HARK_SUBSCRIBE__CONNECTIONS", "1")
        .started()
        .await;
    let sender = Sender::to(chat.url());
    let channels: Vec<_> = (0..LIMIT + 10).map(|_| new_channel()).collect();
    let mut recordings = Vec::new();
    for channel in &channels {
        recordings.push(Recording::ready(format!("{}/events?c={channel}", sse.url())).await);
    }
    let words = [
        "refuses to subscribe",
        "NATS: 64",
        "`mqtt.subscribe_qos = 0`",
    ];
    broker_trouble(&sse, &words).await;
    for channel in &channels {
        sender.post(channel, "hello").await;
    }
    for recording in &recordings {
        recording.wait_for(SOON, "message", 1).await;
    }
}
