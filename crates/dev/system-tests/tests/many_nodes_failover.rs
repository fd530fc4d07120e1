//! PostgreSQL fails over to a replica that lacks the newest: that is told, and nothing that is
//! posted afterwards is lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use system_tests::{Cluster, Posted, Size, new_channel};
use test_kit::{Gap, Ledger, Listener, Recording, ensure, eventually};
use tokio::task::JoinSet;

const CHANNELS: usize = 4;
/// Posts to each channel that the replica has.
const KEPT: usize = 20;
/// Posts to each channel that only the old primary had.
const LOST: usize = 15;
const AFTERWARDS: usize = 20;
const SOON: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_lagging_replica_lacks_is_told_and_everything_new_arrives() {
    let mut cluster = Cluster::start(Size {
        replica: true,
        ..Size::default()
    })
    .await;
    let sender = cluster.sender();
    let channels: Vec<String> = (0..CHANNELS).map(|_| new_channel()).collect();
    // On each node someone listens to each channel.
    let mut listening = Vec::new();
    for (channel, sse) in pairs(&channels, cluster.sse.len()) {
        let recording = Recording::ready(cluster.stream_on(sse, &[channel])).await;
        listening.push((channel, recording));
    }
    for channel in &channels {
        sender.post_many(channel, KEPT).await;
    }
    let mut left = Vec::new();
    for channel in &channels {
        let mut listener = Listener::new(format!("{}&last=10", cluster.stream(&[channel])));
        let mut cursor = None;
        for _ in 0..5 {
            cursor = listener.expect("message", SOON).await.id;
        }
        left.push((channel, cursor.unwrap()));
    }

    let (replica, link) = cluster.replica.take().unwrap();
    replica.catch_up_with(&cluster.store).await;
    link.stall();
    for channel in &channels {
        sender.post_many(channel, LOST).await;
    }
    for (_, recording) in &listening {
        recording.wait_for(SOON, "message", KEPT + LOST).await;
    }
    // For good: what only it had does not come back.
    cluster.store.kill().await;
    replica.promote().await;

    let mut afterwards: BTreeMap<&str, Vec<Posted>> = BTreeMap::new();
    for number in 0..AFTERWARDS {
        for channel in &channels {
            let text = format!("after {number}");
            let posted = sender.post_until_taken(channel, &text).await;
            afterwards.entry(channel).or_default().push(posted);
        }
    }
    let gap = Gap {
        from: Some(KEPT as u64 + 1),
        to: Some((KEPT + LOST) as u64),
        reason: "epoch".to_owned(),
    };
    for (channel, recording) in &listening {
        let all = KEPT + LOST + AFTERWARDS;
        recording.wait_for(SOON, "message", all).await;
        let ledger = Ledger::of(&recording.events()).unwrap();
        assert_eq!(ledger.gaps(channel), std::slice::from_ref(&gap));
        let lines = ledger.delivered(channel)[KEPT + LOST..].iter();
        let lines: Vec<_> = lines.map(|message| &message.line).collect();
        let posted: Vec<_> = afterwards[channel.as_str()]
            .iter()
            .map(|p| &p.line)
            .collect();
        assert_eq!(lines, posted);
    }
    // Who left before the cut continues without a gap, on any node.
    for (sse, (channel, cursor)) in left.iter().enumerate() {
        let url = cluster.stream_on(sse % cluster.sse.len(), &[channel]);
        let recording = Recording::start(Listener::new(url).resuming_from(cursor));
        recording.wait_for(SOON, "message", 5 + AFTERWARDS).await;
        let ledger = Ledger::of(&recording.events()).unwrap();
        assert_eq!(ledger.gaps(channel), []);
        let first = ledger.delivered(channel)[0].seq;
        assert_eq!(first, KEPT as u64 - 4);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fail_over_under_load_swallows_nothing_that_was_answered_after_it() {
    let mut cluster = Cluster::start(Size {
        replica: true,
        ..Size::default()
    })
    .await;
    let (replica, link) = cluster.replica.take().unwrap();
    let channels: Vec<String> = (0..CHANNELS).map(|_| new_channel()).collect();
    let mut listening = Vec::new();
    for (channel, sse) in pairs(&channels, cluster.sse.len()) {
        let recording = Recording::ready(cluster.stream_on(sse, &[channel])).await;
        listening.push((channel, recording));
    }
    let (enough, promoted) = (KEPT * CHANNELS * 2, Arc::new(AtomicBool::new(false)));
    let mut senders = JoinSet::new();
    for channel in channels.iter().flat_map(|channel| [channel; 2]) {
        let (sender, channel) = (cluster.sender(), channel.clone());
        let promoted = Arc::clone(&promoted);
        senders.spawn(async move {
            let (mut all, mut afterwards) = (Vec::new(), 0);
            while afterwards < AFTERWARDS {
                afterwards += usize::from(promoted.load(Ordering::Relaxed));
                all.push(sender.post_until_taken(&channel, "under load").await);
            }
            (channel, all)
        });
    }
    let received = |count: usize| {
        let listening = &listening;
        async move {
            eventually!(SOON, {
                let all = listening.iter().map(|(_, recording)| recording);
                let all: usize = all.map(|recording| recording.count("message")).sum();
                ensure!(
                    all >= count * listening.len() / CHANNELS,
                    "{all} of {count}"
                );
                Ok(())
            });
        }
    };
    received(enough).await;
    link.stall();
    received(enough * 2).await;
    cluster.store.kill().await;
    replica.promote().await;
    promoted.store(true, Ordering::Relaxed);

    let mut answered: BTreeMap<String, BTreeMap<u64, String>> = BTreeMap::new();
    let mut newest = BTreeMap::new();
    for (channel, posted) in senders.join_all().await {
        for posted in posted {
            let epoch = posted.event["epoch"].as_str().unwrap().to_owned();
            let last = newest.entry(channel.clone()).or_insert(String::new());
            if epoch > *last {
                // What was answered before the fail-over may be gone.
                answered.remove(&channel);
                last.clone_from(&epoch);
            }
            if epoch == *last {
                let answered = answered.entry(channel.clone()).or_default();
                answered.insert(posted.seq(), posted.line);
            }
        }
    }
    for (channel, recording) in &listening {
        let (epoch, answered) = (&newest[*channel], &answered[*channel]);
        let last = answered.keys().next_back().unwrap();
        let line = &answered[last];
        eventually!(SOON, {
            let arrived = recording.read(|events| events.iter().any(|event| event.data == *line));
            ensure!(arrived, "{line} has not arrived");
            Ok(())
        });
        let ledger = Ledger::of(&recording.events()).unwrap();
        let reasons: Vec<_> = ledger.gaps(channel).iter().map(|gap| &gap.reason).collect();
        assert_eq!(reasons, ["epoch"], "{:?}", ledger.gaps(channel));
        let delivered = ledger.delivered(channel).iter();
        let delivered = delivered.filter(|message| message.epoch == *epoch);
        let delivered: Vec<_> = delivered.map(|message| &message.line).collect();
        assert_eq!(delivered, answered.values().collect::<Vec<_>>());
    }
}

fn pairs(channels: &[String], nodes: usize) -> impl Iterator<Item = (&String, usize)> {
    let each = move |channel| (0..nodes).map(move |node| (channel, node));
    channels.iter().flat_map(each)
}
