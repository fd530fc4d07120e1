//! Without a broker chat is slower, not silent.

use std::time::{Duration, Instant};

use system_tests::{Chain, Node, Sender, new_channel};
use test_kit::{FaultProxy, Ledger, Recording};

/// How long the broker is away.
const AWAY: Duration = Duration::from_secs(30);

/// How late an event may be while it is: two polls and a slow machine.
const LATE: Duration = Duration::from_secs(5);

/// Posts one message after the other while the broker is away, each of which
/// must be delivered before the next is posted. Returns the statuses.
async fn chat_for(
    away: Duration,
    sender: &Sender,
    channel: &str,
    recording: &Recording,
) -> Vec<u16> {
    let start = Instant::now();
    let mut statuses = Vec::new();
    while start.elapsed() < away {
        let before = recording.count("message");
        for _ in 0..3 {
            statuses.push(
                sender
                    .post(channel, "while the broker is away")
                    .await
                    .status,
            );
        }
        recording.wait_for(LATE, "message", before + 3).await;
    }
    statuses
}

/// Everything was delivered once, in order, with no gap, to the very last post.
async fn settle(sender: &Sender, channel: &str, recording: &Recording) {
    let last = sender.post(channel, "the last").await;
    let count = usize::try_from(last.seq()).unwrap();
    recording
        .wait_for(Duration::from_secs(10), "message", count)
        .await;
    let ledger = Ledger::of(&recording.events()).unwrap();
    assert_eq!(ledger.gaps(channel), []);
    assert_eq!(ledger.delivered(channel).len(), count);
    assert_eq!(ledger.delivered(channel)[count - 1].line, last.line);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn away_for_everyone() {
    let mut chain = Chain::start().await;
    let (sender, channel) = (chain.sender(), new_channel());
    let recording = Recording::ready(chain.stream(&[&channel])).await;
    sender.post(&channel, "before").await;
    recording.wait_for(LATE, "message", 1).await;

    chain.broker.kill().await;
    let statuses = chat_for(AWAY, &sender, &channel, &recording).await;
    assert!(
        statuses.iter().all(|status| matches!(status, 201 | 202)),
        "{statuses:?}"
    );
    assert_eq!(
        statuses.last(),
        Some(&202),
        "the loss of the broker is noticed"
    );
    // A listener that comes now gets its `ready` and everything, too.
    let late = Recording::ready(chain.stream(&[&channel])).await;
    sender.post(&channel, "to both").await;
    late.wait_for(LATE, "message", 1).await;

    chain.broker.start().await;
    sender.wait_for_broker().await;
    // What the outbox held is published now, and none of it is delivered again.
    sender.post_many(&channel, 50).await;
    settle(&sender, &channel, &recording).await;
    late.wait_for(LATE, "message", 52).await;
    assert_eq!(
        Ledger::of(&late.events())
            .unwrap()
            .delivered(&channel)
            .len(),
        52
    );
    assert_eq!(recording.connects(), 1, "the stream stayed open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn away_for_chat_service_alone() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Node::broker().started().await;
    let proxy = FaultProxy::start(broker.address()).await;
    let proxied = format!("mqtt://{}", proxy.address());
    let chat = Node::chat_service(&proxied, folder.path()).started().await;
    let sse = Node::broadcast_sse(&broker.mqtt_url(), &chat.url())
        .started()
        .await;
    let (sender, channel) = (Sender::to(chat.url()), new_channel());
    let recording = Recording::ready(format!("{}/events?c={channel}", sse.url())).await;
    sender.post(&channel, "before").await;
    recording.wait_for(LATE, "message", 1).await;

    proxy.refuse();
    let statuses = chat_for(AWAY, &sender, &channel, &recording).await;
    assert_eq!(
        statuses.last(),
        Some(&202),
        "the loss of the broker is noticed"
    );

    proxy.resume();
    sender.wait_for_broker().await;
    sender.post_many(&channel, 50).await;
    settle(&sender, &channel, &recording).await;
    assert_eq!(recording.connects(), 1, "the stream stayed open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_network_to_the_broker_is_survived() {
    // Nothing is closed: the connections stand, and no byte comes through.
    let folder = tempfile::tempdir().unwrap();
    let broker = Node::broker().started().await;
    let proxy = FaultProxy::start(broker.address()).await;
    let proxied = format!("mqtt://{}", proxy.address());
    let chat = Node::chat_service(&proxied, folder.path()).started().await;
    let sse = Node::broadcast_sse(&proxied, &chat.url()).started().await;
    let (sender, channel) = (Sender::to(chat.url()), new_channel());
    let recording = Recording::ready(format!("{}/events?c={channel}", sse.url())).await;

    proxy.stall();
    chat_for(Duration::from_secs(5), &sender, &channel, &recording).await;
    proxy.resume();
    settle(&sender, &channel, &recording).await;
}
