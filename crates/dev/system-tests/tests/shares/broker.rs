//! The embedded broker inside `hark`.

use std::net::SocketAddr;

use system_tests::{Hark, HonestPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// What the process may write into its log meanwhile, in bytes.
const LOG: usize = 8 * 1024;

/// CONNECT as `d` (MQTT 3.1.1 §3.1).
const CONNECT: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01d";

async fn connect_and_reset(broker: SocketAddr) {
    let mut stream = TcpStream::connect(broker).await.unwrap();
    stream.write_all(CONNECT).await.unwrap();
    stream.set_zero_linger().unwrap();
}

/// What the broker must refuse, after CONNECT.
async fn nonsense(broker: SocketAddr, packet: &[u8]) {
    let mut stream = TcpStream::connect(broker).await.unwrap();
    stream.write_all(CONNECT).await.unwrap();
    stream.write_all(packet).await.unwrap();
    // A reset is an end as well.
    let _ended = stream.read_to_end(&mut Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_the_broker_end_neither_hark_nor_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let mut hark = Hark::up(folder.path()).await;
    let broker: SocketAddr = hark.process().socket("mqtt");
    let mut pair = HonestPair::start(&hark.url("chat"), &hark.url("sse")).await;
    pair.quiet().await;
    let before = hark.process().stderr().len();
    let silent = pair
        .beside(async {
            let mut silent = Vec::new();
            for _ in 0..200 {
                connect_and_reset(broker).await;
                // A topic that begins beyond ASCII, a shared subscription, an acknowledgement of
                // nothing.
                nonsense(broker, b"\x30\x05\x00\x02\xc3\xa9!").await;
                nonsense(broker, b"\x82\x0f\x00\x02\x00\x0a$share/g/x\x00").await;
                nonsense(broker, b"\x40\x02\x00\x07").await;
                silent.push(TcpStream::connect(broker).await.unwrap());
            }
            silent
        })
        .await;
    // The services find their place again, too.
    drop(silent);
    let grown = hark.process().stderr().len() - before;
    assert!(grown <= LOG, "{grown} bytes of log");
    let (status, log) = hark.stop().await;
    assert!(status.success(), "{status}\n{log}");
}

/// Half of `max_topics`, and of `max_filters`, below.
const NAMES: u32 = 200;

/// PUBLISH (§3.3) to a topic, or SUBSCRIBE (§3.8) to a filter, of nine digits.
fn packet(first: u8, number: u32) -> Vec<u8> {
    let name = format!("{number:09}");
    match first {
        0x30 => [b"\x30\x0c\x00\x09", name.as_bytes(), b"!"].concat(),
        _ => [b"\x82\x0e\x00\x01\x00\x09", name.as_bytes(), b"\x00"].concat(),
    }
}

/// Sends until the broker ends the connection, a million packets at most.
async fn flood(broker: SocketAddr, first: u8) {
    let mut stream = TcpStream::connect(broker).await.unwrap();
    stream.write_all(CONNECT).await.unwrap();
    let (mut answers, mut to) = stream.into_split();
    let sending = async {
        for number in 0..1_000_000 {
            if to.write_all(&packet(first, number)).await.is_err() {
                return;
            }
        }
        panic!("the broker takes as many as anybody sends");
    };
    let mut taken = Vec::new();
    // A reset is an end as well.
    let ((), _ended) = tokio::join!(sending, answers.read_to_end(&mut taken));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_the_broker_would_keep_for_ever_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let bound = (NAMES * 2).to_string();
    let mut hark = Hark::up_with(folder.path(), |program| {
        program
            .env("HARK_BROKER__MAX_TOPICS", &bound)
            .env("HARK_BROKER__MAX_FILTERS", &bound)
    })
    .await;
    let broker: SocketAddr = hark.process().socket("mqtt");
    let mut pair = HonestPair::start(&hark.url("chat"), &hark.url("sse")).await;
    pair.quiet().await;
    pair.beside(async {
        for _ in 0..20 {
            flood(broker, 0x30).await;
            flood(broker, 0x82).await;
        }
    })
    .await;
    drop(pair);
    // The services' own topics do not count: those of a new channel are as quick.
    let mut newcomers = HonestPair::start(&hark.url("chat"), &hark.url("sse")).await;
    newcomers.quiet().await;
    let (status, log) = hark.stop().await;
    assert!(status.success(), "{status}\n{log}");
}

/// Almost one address's half of `max_filters`, as it is by default.
const FILTERS: usize = 240;

/// The fixed header (§2.2) of a packet of up to 2 MiB, and the packet.
fn framed(first: u8, body: &[u8]) -> Vec<u8> {
    let seven_bits = |place: usize| u8::try_from(body.len() >> (7 * place) & 0x7f).unwrap();
    let length = [seven_bits(0) | 0x80, seven_bits(1) | 0x80, seven_bits(2)];
    [&[first], &length[..], body].concat()
}

/// A name of 16 levels, the last of which tells it from others, with its length.
fn deep(last: &str) -> Vec<u8> {
    let name = "a/".repeat(15) + last;
    let length = u16::try_from(name.len()).unwrap();
    [&length.to_be_bytes(), name.as_bytes()].concat()
}

async fn connected(broker: SocketAddr, client_id: u8) -> TcpStream {
    let mut stream = TcpStream::connect(broker).await.unwrap();
    let connect = [&CONNECT[..CONNECT.len() - 1], &[client_id]].concat();
    stream.write_all(&connect).await.unwrap();
    stream.read_exact(&mut [0; 4]).await.unwrap();
    stream
}

/// Messages that are compared with every filter, one of which the router acknowledges.
async fn publish_to_none(broker: SocketAddr, client_id: u8) {
    let mut stream = connected(broker, client_id).await;
    let messages = framed(0x30, &[&deep("x")[..], b"!"].concat()).repeat(300);
    let last = framed(0x32, &[&deep("x")[..], b"\x00\x01!"].concat());
    stream.write_all(&[messages, last].concat()).await.unwrap();
    stream.read_exact(&mut [0; 4]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_cost_the_router_much_leave_it_time_for_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut hark = Hark::up(folder.path()).await;
    let broker: SocketAddr = hark.process().socket("mqtt");
    let mut pair = HonestPair::start(&hark.url("chat"), &hark.url("sse")).await;
    pair.quiet().await;
    let mut subscriber = connected(broker, b's').await;
    let filter = |number: usize| [deep(&number.to_string()), vec![0]].concat();
    let filters = (0..FILTERS).flat_map(filter);
    let subscribe: Vec<u8> = [0, 1].into_iter().chain(filters).collect();
    subscriber
        .write_all(&framed(0x82, &subscribe))
        .await
        .unwrap();
    // SUBACK with a byte for each.
    let mut suback = vec![0; 1 + 2 + 2 + FILTERS];
    subscriber.read_exact(&mut suback).await.unwrap();
    pair.beside(async {
        let mut publishers = JoinSet::new();
        for client_id in 0..30 {
            publishers.spawn(publish_to_none(broker, client_id));
        }
        publishers.join_all().await;
    })
    .await;
    let (status, log) = hark.stop().await;
    assert!(status.success(), "{status}\n{log}");
}
