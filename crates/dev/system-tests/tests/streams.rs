//! What a stream promises to whoever has it open: one cursor for all its
//! channels, on every node, and a tidy end.

use std::collections::BTreeSet;
use std::time::Duration;

use system_tests::{Chain, Node, Sender, new_channel};
use test_kit::{Gap, Ledger, Listener, Recording, ensure, eventually};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_cursor_serves_all_channels_of_a_stream_on_another_node() {
    let chain = Chain::start().await;
    let other = Node::broadcast_sse(&chain.broker.mqtt_url(), &chain.chat.url())
        .started()
        .await;
    let sender = chain.sender();
    let channels: Vec<String> = (0..30).map(|_| new_channel()).collect();
    let names: Vec<&str> = channels.iter().map(String::as_str).collect();
    let mut listener = Listener::new(chain.stream(&names));
    listener.expect("ready", SOON).await;
    let mut ledger = Ledger::default();
    for round in 0..3 {
        for channel in &channels {
            sender.post(channel, "live").await;
        }
        for _ in &channels {
            ledger
                .enter(&listener.expect("message", SOON).await)
                .unwrap();
        }
        // What is posted while it is away is replayed by the next node, before `ready`.
        listener.disconnect();
        for channel in &channels {
            sender.post(channel, "while it is away").await;
        }
        let node = [&other, &chain.sse][round % 2].url();
        listener.aim_at(format!("{node}/events?c={}", names.join("&c=")));
        for _ in &channels {
            ledger
                .enter(&listener.expect("message", SOON).await)
                .unwrap();
        }
        listener.expect("ready", SOON).await;
    }
    for channel in &channels {
        assert_eq!(
            (ledger.delivered(channel).len(), ledger.gaps(channel).len()),
            (6, 0)
        );
    }
    assert!(
        listener.cursor().len() <= 2048,
        "{}",
        listener.cursor().len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn since_and_last_begin_where_they_say() {
    let chain = Chain::start().await;
    let (sender, channel) = (chain.sender(), new_channel());
    sender.post_many(&channel, 10).await;
    let stream = chain.stream(&[&channel]);

    let newest = Recording::ready(format!("{stream}&last=3")).await;
    newest.wait_for(SOON, "message", 3).await;
    let ledger = Ledger::of(&newest.events()).unwrap();
    assert_eq!(
        ledger
            .delivered(&channel)
            .iter()
            .map(|message| message.seq)
            .collect::<Vec<_>>(),
        [8, 9, 10]
    );

    let cursor = newest.events()[0].id.clone().unwrap();
    let mut since = Listener::new(format!("{stream}&since={cursor}"));
    assert_eq!(since.expect("message", SOON).await.json()["seq"], 9);
    // A browser repeats the URL, so the newer cursor beats `since`.
    since.expect("ready", SOON).await;
    since.disconnect();
    sender.post(&channel, "eleven").await;
    assert_eq!(since.expect("message", SOON).await.json()["seq"], 11);

    // A cursor that this channel never had: it is not in this log.
    let mut unreadable = Listener::new(&stream).resuming_from("nonsense");
    let gap = unreadable.expect("gap", SOON).await.json();
    assert_eq!(
        (gap["reason"].as_str(), gap["from"].is_null()),
        (Some("cursor"), true)
    );
    assert_eq!(unreadable.expect("message", SOON).await.json()["seq"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_sends_its_listeners_away_and_loses_nothing() {
    let mut chain = Chain::start().await;
    let (sender, channel) = (chain.sender(), new_channel());
    let mut recordings = Vec::new();
    let mut ending = Vec::new();
    for _ in 0..20 {
        recordings.push(Recording::ready(chain.stream(&[&channel])).await);
        let mut listener = Listener::new(chain.stream(&[&channel]));
        listener.expect("ready", SOON).await;
        ending.push(listener);
    }
    sender.post(&channel, "before").await;
    let stopped = chain.sse.stop(Duration::from_secs(20)).await;
    assert_eq!(stopped.code(), Some(0));
    let mut retries = BTreeSet::new();
    for mut listener in ending {
        while listener.next_here().await.is_some() {}
        assert_eq!(listener.trouble(), None, "the stream has a proper end");
        retries.insert(listener.retry());
    }
    assert!(retries.len() > 5, "spread out: {retries:?}");
    sender.post(&channel, "while it was away").await;
    chain.sse.start().await;
    sender.post(&channel, "after").await;
    for recording in recordings {
        recording
            .wait_for(Duration::from_secs(60), "message", 3)
            .await;
        let ledger = Ledger::of(&recording.events()).unwrap();
        assert_eq!(ledger.delivered(&channel).len(), 3);
        assert_eq!(ledger.gaps(&channel), []);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_expired_is_a_gap_that_says_exactly_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Node::broker().started().await;
    let chat = Node::chat_service(&broker.mqtt_url(), folder.path())
        .env("HARK_STORE__MAX_PER_CHANNEL", "10")
        .started()
        .await;
    let node = || Node::broadcast_sse(&broker.mqtt_url(), &chat.url()).started();
    let stream = |node: &Node, channel: &str| format!("{}/events?c={channel}", node.url());
    let (sender, channel) = (Sender::to(chat.url()), new_channel());
    let first = node().await;
    let mut listener = Listener::new(stream(&first, &channel));
    listener.expect("ready", SOON).await;
    let posted = sender.post_many(&channel, 5).await;
    for _ in &posted {
        listener.expect("message", SOON).await;
    }
    listener.disconnect();
    sender.post_many(&channel, 200).await;
    eventually!(SOON, {
        let page = sender.page(&channel, 0).await;
        ensure!(
            page["first"] == 196,
            "the oldest that is kept: {}",
            page["first"]
        );
        Ok(())
    });

    // Another node, which has nothing of it in memory.
    let second = node().await;
    listener.aim_at(stream(&second, &channel));
    let mut ledger = Ledger::default().starting_after(&channel, 5);
    ledger.enter(&listener.expect("gap", SOON).await).unwrap();
    for _ in 196..=205 {
        ledger
            .enter(&listener.expect("message", SOON).await)
            .unwrap();
    }
    let gap = Gap {
        from: Some(6),
        to: Some(195),
        reason: "retention".to_owned(),
    };
    assert_eq!(ledger.gaps(&channel), [gap]);
    assert_eq!(
        ledger.delivered(&channel).last().map(|last| last.seq),
        Some(205)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_channel_of_a_stream_tells_its_gap_and_holds_up_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let broker = Node::broker().started().await;
    let mut chat = Node::chat_service(&broker.mqtt_url(), &store)
        .started()
        .await;
    let sender = Sender::to(chat.url());
    let (damaged, good) = (new_channel(), new_channel());
    for number in 1..=3 {
        sender.post(&damaged, &format!("spoiled-{number}")).await;
        sender.post(&good, "good").await;
    }
    chat.stop(SOON).await;
    let file = store.join("store.sqlite3");
    let mut bytes = std::fs::read(&file).unwrap();
    let needle = b"spoiled-2";
    let at = bytes.windows(needle.len()).position(|part| part == needle);
    // A bit of the text: the line stays good JSON.
    bytes[at.unwrap()] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    chat.start().await;

    let sse = Node::broadcast_sse(&broker.mqtt_url(), &chat.url())
        .started()
        .await;
    let url = format!("{}/events?c={damaged}&c={good}&last=10", sse.url());
    let mut listener = Listener::new(url);
    let mut ledger = Ledger::default();
    let mut kinds = Vec::new();
    while kinds.last().is_none_or(|kind| kind != "ready") {
        let next = tokio::time::timeout(SOON, listener.next());
        let event = next.await.expect("in time").unwrap();
        ledger.enter(&event).unwrap();
        kinds.push(event.event);
    }
    let seqs = |channel: &str| -> Vec<u64> {
        let delivered = ledger.delivered(channel).iter();
        delivered.map(|message| message.seq).collect()
    };
    assert_eq!((seqs(&damaged), seqs(&good)), (vec![1, 3], vec![1, 2, 3]));
    let gap = Gap {
        from: Some(2),
        to: Some(2),
        reason: "damaged".to_owned(),
    };
    assert_eq!(ledger.gaps(&damaged), [gap]);
    assert_eq!(ledger.gaps(&good), []);
    for channel in [&good, &damaged] {
        sender.post(channel, "after it").await;
        let live = listener.expect("message", SOON).await;
        assert_eq!(live.json()["channel"], *channel.as_str());
    }
}
