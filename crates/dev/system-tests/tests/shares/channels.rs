//! Channels that nobody listens to, or that nobody has ever heard of.

use std::net::SocketAddr;
use std::time::Duration;

use system_tests::{Chain, HonestPair, Node, new_channel};
use test_kit::{Mosquitto, ensure, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::interval;

const SOON: Duration = Duration::from_secs(20);

/// In one stream.
const CHANNELS: usize = 100;

/// By each of the clients, one after the other: 20,000 channels a second.
const STREAMS: usize = 200;
const CLIENTS: usize = 2;
const EVERY: Duration = Duration::from_millis(10);

/// Opens a stream of so many channels that nobody has heard of; gives the first bytes of the answer.
async fn open(sse: SocketAddr, channels: usize) -> (TcpStream, String) {
    open_with(sse, channels, "").await
}

/// The same, with further lines in the head.
async fn open_with(sse: SocketAddr, channels: usize, lines: &str) -> (TcpStream, String) {
    let query: Vec<_> = (0..channels)
        .map(|_| format!("c={}", new_channel()))
        .collect();
    let query = query.join("&");
    let mut stream = TcpStream::connect(sse).await.unwrap();
    let head = format!("GET /events?{query} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 1024];
    let read = stream.read(&mut answer).await.unwrap();
    answer.truncate(read);
    (stream, String::from_utf8_lossy(&answer).into_owned())
}

/// Opens streams of random channels and goes at once.
async fn come_and_go(sse: SocketAddr) {
    let mut turns = interval(EVERY);
    for _ in 0..STREAMS {
        turns.tick().await;
        let (_, answer) = open(sse, CHANNELS).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

/// The attack, and what is left of it a little later.
async fn flood(chat: &Node, sse: &Node) {
    let mut pair = HonestPair::start(&chat.url(), &sse.url()).await;
    pair.quiet().await;
    pair.beside(async {
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            clients.spawn(come_and_go(sse.address()));
        }
        clients.join_all().await;
    })
    .await;
    // Long before `hub.linger` is over; the pair's own, and the heartbeats of two connections.
    eventually!(SOON, {
        let channels = sse.metric("hark_sse_channels").await;
        ensure!(channels <= 1, "{channels} channels");
        let filters = sse.metric("hark_sse_filters").await;
        ensure!(filters <= 3, "{filters} filters");
        Ok(())
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_that_nobody_listens_to_are_forgotten_at_once() {
    let chain = Chain::start().await;
    flood(&chain.chat, &chain.sse).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_of_channels_that_nobody_listens_to_are_ended_at_once() {
    let broker = Mosquitto::start().await;
    let folder = tempfile::tempdir().unwrap();
    let chat = Node::chat_service(&broker.url(), &folder.path().join("store"))
        .started()
        .await;
    let sse = Node::broadcast_sse(&broker.url(), &chat.url())
        .env("HARK_SUBSCRIBE__MODE", "per-channel")
        .started()
        .await;
    flood(&chat, &sse).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_hold_no_more_channels_than_there_may_be() {
    let known = (2 * CHANNELS + CHANNELS / 2).to_string();
    let chain = Chain::start_with(|sse| sse.env("HARK_HUB__KNOWN_CHANNELS", &known)).await;
    let sse = chain.sse.address();
    let mut pair = HonestPair::start(&chain.chat.url(), &chain.sse.url()).await;
    pair.quiet().await;
    pair.beside(async {
        let held = (open(sse, CHANNELS).await, open(sse, CHANNELS).await);
        for _ in 0..10 {
            let (_, answer) = open(sse, CHANNELS).await;
            assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
            assert!(answer.contains("/problems/too-many-channels"), "{answer}");
        }
        let (_, few) = open(sse, CHANNELS / 4).await;
        assert!(few.starts_with("HTTP/1.1 200"), "{few}");
        drop(held);
        eventually!(SOON, {
            let (_, answer) = open(sse, CHANNELS).await;
            ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            Ok(())
        });
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_holds_no_more_channels_than_it_leaves_to_others() {
    let known = (4 * CHANNELS).to_string();
    let chain = Chain::start_with(|sse| {
        sse.env("HARK_HUB__KNOWN_CHANNELS", &known)
            .env("HARK_LIMITS__TRUSTED_PROXIES", "127.0.0.1")
    })
    .await;
    let sse = chain.sse.address();
    let mut pair = HonestPair::start(&chain.chat.url(), &chain.sse.url()).await;
    pair.quiet().await;
    let greedy = "X-Forwarded-For: 192.0.2.1\r\n";
    let other = "X-Forwarded-For: 192.0.2.2\r\n";
    let browser = format!("{greedy}Accept: text/event-stream\r\n");
    pair.beside(async {
        let _held = open_with(sse, CHANNELS, greedy).await;
        for _ in 0..10 {
            let (_, answer) = open_with(sse, CHANNELS, greedy).await;
            assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
            assert!(answer.contains("/problems/too-many-channels"), "{answer}");
        }
        // A browser would give up for good on a 429.
        let (_, answer) = open_with(sse, CHANNELS, &browser).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let (_, answer) = open_with(sse, CHANNELS, other).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    })
    .await;
}
