//! Connections, and what their clients do not say.

use std::net::SocketAddr;
use std::time::Duration;

use system_tests::{Chain, Hark, HonestPair, Sender, new_channel};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

/// On each of the two ports.
const SILENT: usize = 400;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_that_never_end_are_not_felt() {
    let chain = Chain::start().await;
    let mut pair = HonestPair::start(&chain.chat.url(), &chain.sse.url()).await;
    pair.quiet().await;
    pair.beside(async {
        let mut open = Vec::new();
        for address in [chain.chat.address(), chain.sse.address()] {
            for _ in 0..SILENT {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let head = b"GET /events HTTP/1.1\r\nHost: localhost\r\nX-Slow: ";
                stream.write_all(head).await.unwrap();
                open.push(stream);
            }
        }
        // A byte of the head now and then, which buys no time.
        for _ in 0..5 {
            for stream in &mut open {
                stream.write_all(b"x").await.unwrap();
            }
            sleep(Duration::from_millis(200)).await;
        }
    })
    .await;
}

/// All that chat-service has in the next test.
const PLACES: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_of_one_client_leave_room_for_others() {
    let Chain { chat, sse, .. } =
        &Chain::start_with_chat(|chat| chat.env("HARK_HTTP__MAX_CONNECTIONS", PLACES.to_string()))
            .await;
    let mut pair = HonestPair::start(&chat.url(), &sse.url()).await;
    pair.quiet().await;
    pair.beside(async {
        let mut idle = Vec::new();
        // Five times as many as there are places, and those that were ended again and again.
        for _ in 0..10 {
            for _ in 0..PLACES / 2 {
                idle.push(TcpStream::connect(chat.address()).await.unwrap());
            }
            sleep(Duration::from_millis(200)).await;
            // Somebody who comes now is answered at once.
            let (fresh, channel) = (Sender::to(chat.url()), new_channel());
            let answer = timeout(Duration::from_secs(5), fresh.post(&channel, "hello"));
            answer.await.expect("somebody new gets a place");
        }
    })
    .await;
}

/// An address of this machine that nobody else has.
const STRANGER: [u8; 4] = [127, 0, 0, 9];

async fn connect(from: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

/// The first line of an answer.
async fn status_of(stream: &mut TcpStream) -> String {
    let mut answer = [0; 12];
    let read = stream.read_exact(&mut answer);
    let read = timeout(Duration::from_secs(10), read).await;
    read.expect("an answer").unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// Makes 20 requests more than there are places, each on a connection of its own: those that were
/// answered with `status`, and how many were refused.
async fn ask_too_often(
    (from, to): ([u8; 4], SocketAddr),
    request: &str,
    status: &str,
) -> (Vec<TcpStream>, usize) {
    let (mut open, mut refused) = (Vec::new(), 0);
    for _ in 0..PLACES + 20 {
        let mut stream = connect(from, to).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        match status_of(&mut stream).await.as_str() {
            "HTTP/1.1 429" => refused += 1,
            answer if answer == status => open.push(stream),
            other => panic!("{other}"),
        }
    }
    (open, refused)
}

/// Idle connections give way anyway; these are all in the middle of a request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn busy_connections_of_one_address_leave_room_for_others() {
    let Chain { chat, sse, .. } = &Chain::start_with_chat(|chat| {
        chat
        .env("HARK_HTTP__MAX_CONNECTIONS", PLACES.to_string())
        .env("HARK_LIMITS__LIMIT_LOOPBACK", "true")
        // The pair has an address that stands for many.
        .env("HARK_LIMITS__TRUSTED_PROXIES", "127.0.0.1")
    })
    .await;
    let mut pair = HonestPair::start(&chat.url(), &sse.url()).await;
    pair.quiet().await;
    let refused = pair
        .beside(async {
            let post = format!(
                "POST /channels/{}/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n",
                new_channel()
            );
            let (_busy, refused) = ask_too_often((STRANGER, chat.address()), &post, "HTTP/1.1 100").await;
            let (fresh, channel) = (Sender::to(chat.url()), new_channel());
            let answer = timeout(Duration::from_secs(5), fresh.post(&channel, "hello"));
            answer.await.expect("somebody new gets a place");
            refused
        })
        .await;
    assert_eq!(refused, PLACES / 2 + 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_one_address_leave_room_for_others() {
    let chain = Chain::start_with(|sse| {
        sse.env("HARK_HUB__MAX_STREAMS", PLACES.to_string())
            .env("HARK_LIMITS__TRUSTED_PROXIES", "127.0.0.1")
    })
    .await;
    let mut pair = HonestPair::start(&chain.chat.url(), &chain.sse.url()).await;
    pair.quiet().await;
    let (open, refused) = pair
        .beside(async {
            let get = format!(
                "GET /events?c={} HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n",
                new_channel()
            );
            ask_too_often(([127, 0, 0, 1], chain.sse.address()), &get, "HTTP/1.1 200").await
        })
        .await;
    assert_eq!((open.len(), refused), (PLACES / 2, PLACES / 2 + 20));
    drop(pair);
    // Somebody new gets a stream beside them.
    HonestPair::start(&chain.chat.url(), &chain.sse.url()).await;
}

/// What one address may have of the connections to the page of `hark`.
const PAGE_SHARE: usize = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_the_page_of_one_address_leave_room_for_others() {
    let folder = tempfile::tempdir().unwrap();
    let hark = Hark::up_with(folder.path(), |hark| {
        hark.env("HARK_CHAT_SERVICE__LIMITS__LIMIT_LOOPBACK", "true")
            // The pair has an address that stands for many.
            .env("HARK_CHAT_SERVICE__LIMITS__TRUSTED_PROXIES", "127.0.0.1")
    })
    .await;
    let page: SocketAddr = hark.process().socket("demo");
    let get = b"GET /config.json HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut pair = HonestPair::start(&hark.url("chat"), &hark.url("sse")).await;
    pair.quiet().await;
    let mut open = pair
        .beside(async {
            let mut open = Vec::new();
            for _ in 0..PAGE_SHARE + 5 {
                let mut stream = connect(STRANGER, page).await;
                stream.write_all(get).await.unwrap();
                assert_eq!(status_of(&mut stream).await, "HTTP/1.1 200");
                open.push(stream);
            }
            open
        })
        .await;
    // Long before `http.idle_timeout`, 75 s. A reset is an end as well.
    let mut rest = Vec::new();
    let ended = timeout(Duration::from_secs(30), open[0].read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the oldest idle one has given way");
    let mut fresh = TcpStream::connect(page).await.unwrap();
    fresh.write_all(get).await.unwrap();
    assert_eq!(status_of(&mut fresh).await, "HTTP/1.1 200");
}
