//! Frames of HTTP/2 that bring nothing, from one connection.

use std::net::SocketAddr;
use std::time::Duration;

use system_tests::{Chain, HonestPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// At most; a service that takes them all has lost. 3 to 5 MB.
const FRAMES: usize = 300_000;
const AT_ONCE: usize = 1_000;
/// What the services may write into their logs meanwhile, in bytes.
const LOG: usize = 8 * 1024;

/// Type, flags, stream and payload of a frame (RFC 9113, section 6).
type Frame = (u8, u8, u8, &'static [u8]);

const FLOODS: [(&str, Frame); 5] = [
    (
        "answers to pings that were never sent",
        (6, 1, 0, b"unasked!"),
    ),
    ("pings", (6, 0, 0, b"are you?")),
    ("settings", (4, 0, 0, b"")),
    ("windows", (8, 0, 0, &[0, 0, 0, 1])),
    ("priorities", (2, 0, 1, &[0, 0, 0, 3, 7])),
];

fn bytes((kind, flags, stream, payload): Frame) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
}

/// Floods until the service ends the connection.
async fn flood(address: SocketAddr, what: &str, frame: Frame) {
    let (mut from, mut to) = TcpStream::connect(address).await.unwrap().into_split();
    let settings = bytes((4, 0, 0, b""));
    to.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    to.write_all(&settings).await.unwrap();
    let ended = async {
        let mut scratch = vec![0; 64 * 1024];
        // A reset is an end too.
        while from.read(&mut scratch).await.unwrap_or(0) > 0 {}
    };
    let sent = async {
        let frames = bytes(frame).repeat(AT_ONCE);
        for _ in 0..FRAMES / AT_ONCE {
            if to.write_all(&frames).await.is_err() {
                return;
            }
        }
        std::future::pending::<()>().await;
    };
    let end = async {
        tokio::select! { () = ended => (), () = sent => () }
    };
    let end = timeout(Duration::from_secs(10), end).await;
    assert!(end.is_ok(), "{address} goes on taking {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_bring_nothing_end_their_connection_and_are_not_logged() {
    let chain = Chain::start().await;
    let mut pair = HonestPair::start(&chain.chat.url(), &chain.sse.url()).await;
    pair.quiet().await;
    let logged = || chain.chat.process().stderr().len() + chain.sse.process().stderr().len();
    let before = logged();
    pair.beside(async {
        for address in [chain.chat.address(), chain.sse.address()] {
            for (what, frame) in FLOODS {
                flood(address, what, frame).await;
            }
        }
    })
    .await;
    let grown = logged() - before;
    assert!(grown <= LOG, "{grown} bytes of log");
}
