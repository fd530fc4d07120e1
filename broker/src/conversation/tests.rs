use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use bytes::BytesMut;
use rumqttd::protocol::Publish;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadBuf, WriteHalf};
use tokio::task::JoinHandle;
use tokio::time::{advance, sleep};

use super::*;
use crate::BrokerConfig;
use crate::clients::Clients;
use crate::guard::GuardState;
use crate::outbox::Outbox;
use crate::router::RouterLife;

const PINGREQ: [u8; 2] = [0xc0, 0];

/// PUBLISH of 100,000 bytes (MQTT 3.1.1 §3.3), without most of them.
const LARGE: [u8; 7] = [0x30, 0xa0, 0x8d, 0x06, 0, 1, b't'];

impl Sink for WriteHalf<DuplexStream> {
    fn write_now(&self, _bytes: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

/// A client of a real router, to whom `waiting` is to be written through a pipe of `width`
/// bytes. From now on, time passes only where somebody waits for it.
async fn converse(
    width: usize,
    waiting: &[u8],
    silence: Option<Duration>,
) -> (DuplexStream, JoinHandle<Result<(), End>>) {
    let router = Arc::new(RouterLife::start(&BrokerConfig::default()).unwrap());
    let link = router.door().open().await.unwrap();
    tokio::time::pause();
    converse_by(router, link, width, waiting, silence)
}

fn converse_by(
    router: Arc<RouterLife>,
    link: Link,
    width: usize,
    waiting: &[u8],
    silence: Option<Duration>,
) -> (DuplexStream, JoinHandle<Result<(), End>>) {
    let (outside, inside) = tokio::io::duplex(width);
    let halves = tokio::io::split(inside);
    (outside, converse_on(router, link, halves, waiting, silence))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the test itself waits for the task, and tells whether it ended"
)]
fn converse_on(
    router: Arc<RouterLife>,
    link: Link,
    (reader, sink): (
        impl AsyncRead + Unpin + Send + 'static,
        WriteHalf<DuplexStream>,
    ),
    waiting: &[u8],
    silence: Option<Duration>,
) -> JoinHandle<Result<(), End>> {
    let mut outbox = Outbox::new();
    outbox.bytes().extend_from_slice(waiting);
    let connection = Connection {
        reader,
        sink,
        inbox: BytesMut::new(),
        outbox,
        max_packet: 512 * 1024,
    };
    let clients = Arc::new(Clients::new(1, 1));
    tokio::spawn(async move {
        let _router = router;
        let (mut client, _ended) = clients.enter("192.0.2.1".parse().unwrap());
        let state = GuardState::new(&BrokerConfig::default());
        let guard = Guard::new(&state, client.share(), false);
        let mut conversation = Conversation::new(connection, link, guard, &mut client);
        conversation.run(silence).await
    })
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn client_that_takes_a_little_now_and_then_is_not_stalled() {
    let (mut client, conversing) = converse(64, &[7; 100 * 64], None).await;
    let start = Instant::now();
    let mut taken = [0; 64];
    for _ in 0..100 {
        sleep(STALL - Duration::from_secs(1)).await;
        client.read_exact(&mut taken).await.unwrap();
    }
    assert!(start.elapsed() > 90 * STALL);
    assert!(!conversing.is_finished());
}

#[tokio::test]
async fn client_that_takes_nothing_is_stalled() {
    let (_client, conversing) = converse(64, &[7; 65], None).await;
    let start = Instant::now();
    let end = conversing.await.unwrap().unwrap_err();
    assert!(matches!(end, End::Stalled), "{end}");
    let after = start.elapsed();
    assert!(after >= STALL && after < STALL + MINUTE, "{after:?}");
}

#[tokio::test]
async fn without_keep_alive_silence_lasts_for_ever() {
    let (client, conversing) = converse(64, &[], None).await;
    sleep(100 * 24 * 60 * MINUTE).await;
    assert!(!conversing.is_finished());
    drop(client);
    let end = conversing.await.unwrap().unwrap_err();
    assert!(matches!(end, End::Left), "{end}");
}

#[tokio::test]
async fn client_that_says_nothing_is_ended() {
    let (mut client, conversing) = converse(64, &[], Some(MINUTE)).await;
    client.write_all(&LARGE[..1]).await.unwrap();
    let start = Instant::now();
    // A byte of a packet now and then says nothing.
    for byte in &LARGE[1..] {
        sleep(MINUTE / 10).await;
        client.write_all(&[*byte]).await.unwrap();
    }
    let end = conversing.await.unwrap().unwrap_err();
    assert!(matches!(end, End::Silent), "{end}");
    assert!(start.elapsed() <= MINUTE + Duration::from_secs(1));
}

#[tokio::test]
async fn large_packet_may_take_longer_than_the_keep_alive() {
    let (mut client, conversing) = converse(10_000, &[], Some(MINUTE)).await;
    client.write_all(&LARGE).await.unwrap();
    for _ in 0..99 {
        sleep(MINUTE / 2).await;
        client.write_all(&[b'!'; 1000]).await.unwrap();
    }
    assert!(!conversing.is_finished());
}

#[tokio::test]
async fn what_came_counts_before_a_time_that_has_passed() {
    let (mut client, conversing) = converse(4096, &[], Some(MINUTE)).await;
    for _ in 0..50 {
        client.write_all(&PINGREQ).await.unwrap();
        // A machine that was asleep: both are there when it wakes up.
        advance(2 * MINUTE).await;
    }
    assert!(!conversing.is_finished());
}

#[tokio::test]
async fn client_that_takes_no_answer_is_not_asked_for_more() {
    let (mut client, _conversing) = converse(64, &[7; 65], None).await;
    let pings = PINGREQ.repeat(32);
    let mut taken = 0;
    while taken < 1 << 20 {
        let write = timeout(STALL / 2, client.write_all(&pings));
        if write.await.is_err() {
            break;
        }
        taken += pings.len();
    }
    assert!((READ..4 * READ).contains(&taken), "{taken} bytes were read");
}

#[tokio::test]
async fn client_that_is_sent_more_than_it_takes_is_heard() {
    let router = Arc::new(RouterLife::start(&BrokerConfig::default()).unwrap());
    let link = router.door().open().await.unwrap();
    let (client, _conversing) = converse_by(Arc::clone(&router), link, 1024, &[], None);
    let (mut from_broker, mut to_broker) = tokio::io::split(client);
    // SUBSCRIBE to "t" (§3.8), SUBACK.
    let subscribe = b"\x82\x06\x00\x01\x00\x01t\x00";
    to_broker.write_all(subscribe).await.unwrap();
    from_broker.read_exact(&mut [0; 5]).await.unwrap();
    let flood = 2000;
    let mut flooding = router.door().open().await.unwrap();
    for _ in 0..flood {
        let publish = Publish::new(vec![b't'], vec![b'!'; 1000], false);
        let mut packets = vec![Packet::Publish(publish, None)];
        flooding.send(&mut packets).await.unwrap();
    }
    // The router has them all, and the client the first.
    router.answers(MINUTE).await.unwrap();
    let mut got = [0; 1000];
    let mut taken = from_broker.read(&mut got).await.unwrap();
    let pings = PINGREQ.repeat(2 * READ);
    let mut heard = std::pin::pin!(to_broker.write_all(&pings));
    loop {
        tokio::select! {
            biased;
            heard = &mut heard => break heard.unwrap(),
            read = from_broker.read(&mut got) => taken += read.unwrap(),
        }
    }
    assert!(taken < flood * 1000, "heard after {taken} bytes");
}

/// PUBLISH of QoS 1 to "t" (§3.3).
const PUBLISH: [u8; 8] = *b"\x32\x06\x00\x01t\x00\x01!";

/// There is always something to read, until that many bytes have been.
struct Flood {
    read: Arc<AtomicUsize>,
    end: usize,
}

impl AsyncRead for Flood {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = self.read.load(Relaxed);
        let count = buffer.remaining().min(self.end - before);
        if count == 0 {
            return Poll::Pending;
        }
        for at in before..before + count {
            buffer.put_slice(&[PUBLISH[at % PUBLISH.len()]]);
        }
        self.read.store(before + count, Relaxed);
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn client_that_sends_without_pause_is_answered_meanwhile() {
    let router = Arc::new(RouterLife::start(&BrokerConfig::default()).unwrap());
    let link = router.door().open().await.unwrap();
    let read = Arc::new(AtomicUsize::new(0));
    let end = 100_000 * PUBLISH.len();
    let flood = Flood {
        read: Arc::clone(&read),
        end,
    };
    let (mut outside, inside) = tokio::io::duplex(1024);
    let (_, sink) = tokio::io::split(inside);
    let _conversing = converse_on(router, link, (flood, sink), &[], None);
    let mut answer = [0; 4];
    outside.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, [0x40, 2, 0, 1]);
    let read = read.load(Relaxed);
    assert!(read < end, "answered after all {read} bytes");
}
