//! Who does not read costs the others nothing.

use std::time::Duration;

use system_tests::{Chain, Sender, new_channel};
use test_kit::{Event, Listener, ensure, eventually, open_without_reading};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

const SLOW: usize = 50;
const READING: usize = 50;
const EVENTS: usize = 20_000;
const SENDERS: usize = 32;

/// Of each text: all of them together are several times what the node may keep.
const TEXT_BYTES: usize = 1_500;

/// What the node is told to keep at most, in bytes: events in memory, and pages of history.
const RINGS: u64 = 4 << 20;
const PAGES: u64 = 4 << 20;

/// What it may take on top: what is on its way to 100 connections, and what mimalloc has not given
/// back yet, which is up to 16 MiB after a burst. One more copy of all events would not fit.
const BESIDES: u64 = 24 << 20;

/// How long after the last post a listener that reads may take to have everything.
const LATE: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_that_never_read_hold_up_nobody() {
    let chain = Chain::start_with(|sse| {
        sse.env("HARK_HUB__MEMORY", format!("{RINGS}"))
            .env("HARK_HUB__PAGE_BYTES", format!("{PAGES}"))
    })
    .await;
    let (sender, channel) = (chain.sender(), new_channel());
    let mut readers = JoinSet::new();
    let (ready, mut all_ready) = tokio::sync::mpsc::channel(READING);
    for _ in 0..READING {
        let (listener, ready) = (Listener::new(chain.stream(&[&channel])), ready.clone());
        readers.spawn(async move {
            let mut listener = listener;
            listener.expect("ready", Duration::from_secs(20)).await;
            ready.send(()).await.unwrap();
            read_all(listener).await
        });
    }
    for _ in 0..READING {
        all_ready.recv().await.unwrap();
    }
    let before = chain.sse.process().resident_bytes();
    let mut silent = Vec::new();
    for _ in 0..SLOW {
        silent
            .push(open_without_reading(chain.sse.address(), &format!("/events?c={channel}")).await);
    }

    post_all(&sender, &channel).await;
    let posted = Instant::now();
    while let Ok(reader) = timeout(LATE, readers.join_next()).await {
        let Some(connects) = reader else { break };
        assert_eq!(connects.unwrap(), 1, "a reader was disconnected");
    }
    assert!(readers.is_empty(), "{} readers are late", readers.len());
    println!("all read {:?} after the last post", posted.elapsed());

    let grown = chain.sse.process().resident_bytes().saturating_sub(before);
    println!("grown by {} KiB from {} KiB", grown / 1024, before / 1024);
    let bound = RINGS + PAGES + BESIDES;
    assert!(
        grown <= bound,
        "grown by {grown} bytes, allowed are {bound}"
    );
    // The node is as good as before, for new listeners too.
    let mut another = Listener::new(chain.stream(&[&channel]));
    another.expect("ready", LATE).await;
    sender.post(&channel, "afterwards").await;
    another.expect("message", LATE).await;
    drop(silent);
}

async fn post_all(sender: &Sender, channel: &str) {
    let mut senders = JoinSet::new();
    for _ in 0..SENDERS {
        let (sender, channel) = (sender.clone(), channel.to_owned());
        senders.spawn(async move {
            let text = "x".repeat(TEXT_BYTES);
            for _ in 0..EVENTS / SENDERS {
                sender.post(&channel, &text).await;
            }
            EVENTS / SENDERS
        });
    }
    let posted: usize = senders.join_all().await.into_iter().sum();
    assert_eq!(posted, EVENTS);
}

/// Reads all events, which must come in order, and returns how often it had to connect.
async fn read_all(mut listener: Listener) -> usize {
    let mut due = 1;
    while due <= EVENTS as u64 {
        let event = listener.next().await.unwrap();
        if event.event == "message" {
            assert_eq!(seq(&event), due);
            due += 1;
        }
    }
    listener.connects()
}

/// Fifty readers get a million events, too many to read each as JSON.
fn seq(event: &Event) -> u64 {
    let (_, rest) = event.data.split_once(r#""seq":"#).unwrap();
    rest.split(',').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_takes_no_byte_is_disconnected() {
    let chain = Chain::start().await;
    let (sender, channel) = (chain.sender(), new_channel());
    let recording = test_kit::Recording::ready(chain.stream(&[&channel])).await;
    let silent = open_without_reading(chain.sse.address(), &format!("/events?c={channel}")).await;
    // More than the buffers between it and the node take.
    let text = "x".repeat(30_000);
    for _ in 0..100 {
        sender.post(&channel, &text).await;
    }
    recording.wait_for(LATE, "message", 100).await;
    // 30 seconds without a byte are allowed.
    eventually!(Duration::from_secs(60), {
        let open = connections_from(&chain, silent.local_addr()?.port());
        ensure!(open == 0, "the node still holds its connection");
        Ok(())
    });
    sender.post(&channel, "still here").await;
    recording.wait_for(LATE, "message", 101).await;
    assert_eq!(recording.connects(), 1);
}

/// How many established connections the node has with this port of a client (proc(5), /proc/net/tcp).
fn connections_from(chain: &Chain, port: u16) -> usize {
    let local = format!(":{:04X}", chain.sse.address().port());
    let remote = format!(":{port:04X}");
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let established = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        let (from, to, state) = (fields.next(), fields.next(), fields.next());
        from.is_some_and(|from| from.ends_with(&local))
            && to.is_some_and(|to| to.ends_with(&remote))
            && state == Some("01")
    };
    table.lines().filter(established).count()
}
