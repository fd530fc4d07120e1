//! Nodes that lag, and nodes that sleep: a listener gets nothing twice and misses nothing.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use system_tests::{Cluster, Sender, Size, new_channel};
use test_kit::{Ledger, Listener, Recording, ensure, eventually};

/// Longer than a chat-service's lease on what it has to publish, with the time to notice its end.
const TAKEN_OVER: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(60);

async fn breakable() -> Cluster {
    Cluster::start(Size {
        breakable: true,
        ..Size::default()
    })
    .await
}

fn check(channel: &str, recording: &Recording, lines: &[String]) {
    let ledger = Ledger::default().starting_after(channel, 0);
    let ledger = ledger.with(&recording.events()).unwrap();
    assert_eq!(ledger.gaps(channel), []);
    let got: Vec<_> = ledger.delivered(channel).iter().map(|m| &m.line).collect();
    assert_eq!(got, lines.iter().collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_resumes_on_a_node_that_lags_gets_everything_once() {
    let cluster = breakable().await;
    let (sender, channel) = (cluster.sender(), new_channel());
    // Both nodes know the channel before one of them goes deaf.
    let on_the_other = Recording::ready(cluster.stream_on(1, &[&channel])).await;
    let mut listener = Listener::new(cluster.stream_on(0, &[&channel]));
    listener.expect("ready", SOON).await;
    let mut lines = Vec::new();
    let mut post = async |count| {
        for posted in sender.post_many(&channel, count).await {
            lines.push(posted.line);
        }
    };
    let mut events = Vec::new();
    post(10).await;
    for _ in 0..10 {
        events.push(listener.expect("message", SOON).await);
    }
    cluster.links.sse_to_broker[1].stall();
    post(20).await;
    for _ in 0..20 {
        events.push(listener.expect("message", SOON).await);
    }
    // Its cursor is ahead of what the other node was told, and so is what comes next.
    listener.disconnect();
    listener.aim_at(cluster.stream_on(1, &[&channel]));
    post(10).await;
    events.push(listener.expect("message", SOON).await);
    post(10).await;
    for _ in 1..20 {
        events.push(listener.expect("message", SOON).await);
    }
    cluster.links.sse_to_broker[1].resume();
    post(10).await;
    for _ in 0..10 {
        events.push(listener.expect("message", SOON).await);
    }
    let ledger = Ledger::of(&events).unwrap();
    let got: Vec<_> = ledger.delivered(&channel).iter().map(|m| &m.line).collect();
    assert_eq!(got, lines.iter().collect::<Vec<_>>());
    on_the_other.wait_for(SOON, "message", lines.len()).await;
    check(&channel, &on_the_other, &lines);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_sleeping_chat_service_had_to_publish_is_published_by_another() {
    let cluster = breakable().await;
    let channels: Vec<String> = (0..5).map(|_| new_channel()).collect();
    let mut recordings = Vec::new();
    for (number, channel) in channels.iter().enumerate() {
        let stream = cluster.stream_on(number % 3, &[channel]);
        recordings.push(Recording::ready(stream).await);
    }
    let [sleeper, other] = [0, 1].map(|number| Sender::to(cluster.chat[number].url()));
    let mut lines = vec![Vec::new(); channels.len()];
    // Stored and answered, but not published.
    cluster.links.chat_to_broker[0].stall();
    for (channel, lines) in channels.iter().zip(&mut lines) {
        let posted = sleeper.post_many(channel, 20).await;
        lines.extend(posted.into_iter().map(|posted| posted.line));
    }
    let asleep = cluster.chat[0].process();
    asleep.signal(Signal::STOP);
    for (channel, lines) in channels.iter().zip(&mut lines) {
        for _ in 0..5 {
            lines.push(other.post_until_taken(channel, "meanwhile").await.line);
        }
    }
    // Nothing that is stored waits for its publication any more.
    let awake = cluster.chat[1].url();
    eventually!(TAKEN_OVER, {
        ensure!(!is_behind(&awake).await?, "something is not published");
        Ok(())
    });
    for (recording, lines) in recordings.iter().zip(&lines) {
        recording.wait_for(SOON, "message", lines.len()).await;
    }
    cluster.links.chat_to_broker[0].resume();
    asleep.signal(Signal::CONT);
    for (channel, lines) in channels.iter().zip(&mut lines) {
        for sender in [&sleeper, &other, &sleeper] {
            lines.push(sender.post_until_taken(channel, "awake").await.line);
        }
    }
    for ((channel, recording), lines) in channels.iter().zip(&recordings).zip(&lines) {
        recording.wait_for(SOON, "message", lines.len()).await;
        check(channel, recording, lines);
    }
}

/// Whether a chat-service says that something stored is not published.
async fn is_behind(chat: &str) -> reqwest::Result<bool> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let ask = client.post(format!("{chat}/heads"));
    let answer = ask.json(&json!({ "channels": [] })).send().await?;
    let answer: Value = answer.error_for_status()?.json().await?;
    Ok(answer["behind"] != false)
}
