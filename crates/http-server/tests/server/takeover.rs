//! Answers that take over their connection.

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use http_server::http::{Framing, HttpOptions, Offer, Taken};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{LONG, Running, ask, options, rest, start};

/// The connection that was taken over, and the framing to use on it.
type Takeover = (Framing, Taken);

/// `/stream` begins with `first` and is taken over; `/hello` gives an ordinary answer.
fn serve(first: Bytes, options: HttpOptions) -> (Running, mpsc::UnboundedReceiver<Takeover>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let stream = move |request: Request| {
        let (first, sender) = (first.clone(), sender.clone());
        async move {
            let offer = Offer::get(request.extensions()).expect("the server makes one");
            // If it is dropped without being taken, the closed channel shows that.
            offer.accept(Response::new(Body::empty()), first, move |taken| {
                sender.send((offer.framing, taken)).unwrap();
            })
        }
    };
    let hello = get(|| async { "hello".into_response() });
    let router = Router::new()
        .route("/stream", get(stream))
        .route("/hello", hello);
    (start(router, options), receiver)
}

async fn taken(takeovers: &mut mpsc::UnboundedReceiver<Takeover>) -> Takeover {
    let next = timeout(LONG, takeovers.recv()).await;
    next.expect("the socket is taken").expect("the server runs")
}

#[tokio::test]
async fn the_taker_writes_on_after_the_head_and_the_first_bytes() {
    let (server, mut takeovers) = serve("first".into(), options());
    let mut client = server.connect().await;
    let request = "GET /stream HTTP/1.1\r\nhost: a\r\n\r\n";
    let head = ask(&mut client, request, "5\r\nfirst\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
    assert!(head.contains("connection: close\r\n"), "{head}");
    let (framing, mut taken) = taken(&mut takeovers).await;
    assert_eq!(framing, Framing::Chunked);
    assert_eq!(taken.peer, client.local_addr().unwrap());
    assert!(taken.unread.is_empty());
    let more = b"6\r\nsecond\r\n0\r\n\r\n";
    taken.socket.write_all(more).await.unwrap();
    drop(taken);
    assert_eq!(rest(&mut client).await.as_bytes(), more);
    server.stop().await;
}

#[tokio::test]
async fn http_1_0_gets_bare_bytes_until_the_end() {
    for request in [
        "GET /stream HTTP/1.0\r\n\r\n",
        "GET /stream HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
    ] {
        let (server, mut takeovers) = serve("first".into(), options());
        let mut client = server.connect().await;
        let head = ask(&mut client, request, "\r\n\r\nfirst").await;
        assert!(!head.contains("transfer-encoding"), "{head}");
        let (framing, mut taken) = taken(&mut takeovers).await;
        assert_eq!(framing, Framing::UntilClose);
        taken.socket.write_all(b" and last").await.unwrap();
        drop(taken);
        assert_eq!(rest(&mut client).await, " and last");
        server.stop().await;
    }
}

#[tokio::test]
async fn requests_before_are_answered_and_those_behind_are_handed_over() {
    let (server, mut takeovers) = serve(Bytes::new(), options());
    let mut client = server.connect().await;
    let hello = "GET /hello HTTP/1.1\r\nhost: a\r\n\r\n";
    ask(&mut client, hello, "hello").await;
    let both = format!("GET /stream HTTP/1.1\r\nhost: a\r\n\r\n{hello}");
    ask(&mut client, &both, "\r\n\r\n").await;
    let (_, taken) = taken(&mut takeovers).await;
    assert_eq!(&taken.unread[..], hello.as_bytes());
    drop(taken);
    rest(&mut client).await;
    server.stop().await;
}

#[tokio::test]
async fn who_asks_for_the_head_only_keeps_the_connection() {
    let (server, mut takeovers) = serve("first".into(), options());
    let mut client = server.connect().await;
    let head = "HEAD /stream HTTP/1.1\r\nhost: a\r\n\r\n";
    ask(&mut client, head, "\r\n\r\n").await;
    drop(client);
    server.stop().await;
    assert!(takeovers.recv().await.is_none(), "nothing was taken");
}

/// More than the kernel's buffers hold.
fn large() -> Bytes {
    (0..1 << 20).map(|i: u32| b'a' + (i % 26) as u8).collect()
}

async fn read_exactly(client: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    let read = timeout(LONG, client.read_exact(&mut bytes)).await;
    read.expect("all of it comes").unwrap();
    bytes
}

/// A server whose sockets take little at a time.
fn small() -> HttpOptions {
    HttpOptions {
        send_buffer: Some(4_096),
        ..options()
    }
}

#[tokio::test]
async fn what_does_not_fit_in_one_go_comes_before_the_takers_bytes() {
    // More than the server buffers before it flushes; then less, but still more than the kernel takes.
    for first in [large(), large().slice(..24 << 10)] {
        let (server, mut takeovers) = serve(first.clone(), small());
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        let mut client = socket.connect(server.addr).await.unwrap();
        let request = b"GET /stream HTTP/1.0\r\n\r\n";
        client.write_all(request).await.unwrap();
        let taker = async {
            let (_, mut taken) = taken(&mut takeovers).await;
            taken.socket.write_all(b"END").await.unwrap();
        };
        let reader = async {
            // Not before the kernel has taken what it can.
            client.peek(&mut [0; 1]).await.unwrap();
            let answer = rest(&mut client).await;
            let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
            assert!(head.starts_with("HTTP/1.0 200 "), "{head}");
            let body = body.strip_suffix("END").expect("the taker's bytes last");
            assert!(body.as_bytes() == first, "the first bytes come whole");
        };
        tokio::join!(taker, reader);
        server.stop().await;
    }
}

#[tokio::test]
async fn who_goes_before_the_head_is_out_is_not_taken() {
    let (server, mut takeovers) = serve(large(), small());
    let mut client = server.connect().await;
    client
        .write_all(b"GET /stream HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    // The answer has begun, but there is no room for all of it.
    read_exactly(&mut client, 100).await;
    drop(client);
    server.stop().await;
    assert!(takeovers.recv().await.is_none(), "nothing was taken");
}

#[tokio::test]
async fn a_taken_connection_keeps_its_place() {
    let one = HttpOptions {
        max_connections: 1,
        ..options()
    };
    let (server, mut takeovers) = serve("first".into(), one);
    let mut client = server.connect().await;
    let request = "GET /stream HTTP/1.1\r\nhost: a\r\n\r\n";
    ask(&mut client, request, "first\r\n").await;
    let (_, taken) = taken(&mut takeovers).await;
    let mut second = server.connect().await;
    second
        .write_all(b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    // If the place were free, the answer would be under way before all tasks are idle.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let early = second.try_read(&mut [0; 1]);
    assert_eq!(early.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    drop(taken);
    ask(&mut second, "", "hello").await;
    drop(second);
    rest(&mut client).await;
    server.stop().await;
}
