//! A RabbitMQ cluster whose nodes die under load.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use system_tests::{Load, Node, Sender, broker_is_well};
use test_kit::BrokerCluster;

const NODES: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_node_may_die_under_load_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = BrokerCluster::rabbitmq(NODES).await;
    let chat = Node::chat_service(&cluster.urls(), &folder.path().join("store"))
        .env("HARK_OUTBOX__CONNECTIONS", "2")
        .started()
        .await;
    let sse = |mode: &str| {
        let node = Node::broadcast_sse(&cluster.urls(), &chat.url());
        node.env("HARK_SUBSCRIBE__MODE", mode)
    };
    let nodes = [
        sse("wildcard").started().await,
        sse("per-channel").started().await,
    ];
    let sender = Sender::to(chat.url());
    // Each connection begins at any node: every one of them loses its own at one of the kills.
    for victim in 0..NODES {
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
        cluster.kill(victim).await;
        load.verify().await;
        // Two of three are enough, and every connection has found one of them.
        for node in nodes.iter().chain([&chat]) {
            broker_is_well(node).await;
        }
        cluster.restart(victim).await;
    }
}
