//! HTTP/2, on a plain connection from its first byte.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Full};
use http_server::http::{HttpOptions, Offer};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{LONG, counted, options, rest, start};

type Sender = SendRequest<Full<Bytes>>;

/// A client on `stream`, and the end of its connection.
pub(crate) async fn client(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    window: u32,
) -> (Sender, JoinHandle<()>) {
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(window)
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    #[expect(clippy::disallowed_methods, reason = "a task of the test")]
    let ended = tokio::spawn(async move {
        // The test checks how the server ends it.
        drop(connection.await);
    });
    (sender, ended)
}

pub(crate) fn request(path: &str) -> Request<Full<Bytes>> {
    Request::get(format!("http://127.0.0.1{path}"))
        .body(Full::default())
        .unwrap()
}

/// `/stream` sends the number of turns, and sends it again whenever it changes. `/flood` never stops.
/// `/echo` answers with what it is sent.
pub(crate) fn router(turns: watch::Receiver<u64>) -> Router {
    let stream = move |request: Request| {
        let turns = turns.clone();
        async move {
            assert!(Offer::get(request.extensions()).is_none());
            let turns = stream::unfold((turns, true), |(mut turns, first)| async move {
                if !first {
                    turns.changed().await.ok()?;
                }
                let turn = turns.borrow_and_update().to_string();
                Some((Ok::<_, Infallible>(turn), (turns, false)))
            });
            Body::from_stream(turns)
        }
    };
    let flood = || async {
        let ones = stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 1024])));
        Body::from_stream(ones)
    };
    Router::new()
        .route("/stream", get(stream))
        .route("/flood", get(flood))
        .route("/echo", post(|body: Bytes| async move { body }))
        .route("/host", get(host))
}

#[tokio::test]
async fn a_hundred_streams_share_one_connection() {
    let (turn, turns) = watch::channel(0_u64);
    let server = start(router(turns), options());
    let (mut sender, _ended) = client(server.connect().await, 65_535).await;
    let mut streams = Vec::new();
    for _ in 0..100 {
        let answer = sender.send_request(request("/stream")).await.unwrap();
        streams.push(answer.into_body().into_data_stream());
    }
    for expected in ["0", "1"] {
        for stream in &mut streams {
            let said = timeout(LONG, stream.next()).await.unwrap().unwrap();
            assert_eq!(said.unwrap(), expected);
        }
        turn.send_modify(|turn| *turn += 1);
    }
    let post = Request::post("http://127.0.0.1/echo")
        .body("hello".into())
        .unwrap();
    let answer = sender.send_request(post).await.unwrap();
    assert_eq!(
        answer.into_body().collect().await.unwrap().to_bytes(),
        "hello"
    );
    drop(streams);
    drop(turn);
    server.stop().await;
}

async fn host(headers: HeaderMap) -> Bytes {
    Bytes::copy_from_slice(headers["host"].as_bytes())
}

#[tokio::test]
async fn host_is_where_http1_has_it() {
    let (_turn, turns) = watch::channel(0_u64);
    let server = start(router(turns), options());
    let (mut sender, _ended) = client(server.connect().await, 65_535).await;
    let answer = sender.send_request(request("/host")).await.unwrap();
    let host = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(host, "127.0.0.1");
    server.stop().await;
}

#[tokio::test]
async fn client_that_takes_nothing_is_let_go() {
    let (_turn, turns) = watch::channel(0_u64);
    let short = HttpOptions {
        write_stall: Duration::from_millis(300),
        ..options()
    };
    let cut = short.stalled.clone();
    let server = start(router(turns), short);
    let (mut sender, ended) = client(server.connect().await, 1_000).await;
    let answer = sender.send_request(request("/flood")).await.unwrap();
    timeout(LONG, ended)
        .await
        .expect("the connection ends")
        .unwrap();
    assert_eq!(cut.get(), 1);
    drop(answer);
    server.stop().await;
}

#[tokio::test]
async fn client_that_does_not_even_answer_a_ping_is_let_go() {
    let (_turn, turns) = watch::channel(0_u64);
    let short = HttpOptions {
        write_stall: Duration::from_millis(300),
        ping_every: Duration::from_millis(100),
        ..options()
    };
    let cut = short.stalled.clone();
    let server = start(router(turns), short);
    let (near, mut far) = tokio::io::duplex(65_536);
    let mut socket = server.connect().await;
    let (mut sender, ended) = client(near, 65_535).await;
    let answer = tokio::select! {
        answer = sender.send_request(request("/stream")) => answer.unwrap(),
        copied = copy_bidirectional(&mut far, &mut socket) => panic!("{copied:?}"),
    };
    // From here on nobody reads. The stream sends little, and all of it fits into the buffers on the way.
    counted(&cut, 1).await;
    drop((answer, sender, far));
    ended.await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn client_whose_stream_has_nothing_to_say_is_kept() {
    let (turn, turns) = watch::channel(0_u64);
    let short = HttpOptions {
        write_stall: Duration::from_millis(100),
        idle_timeout: Duration::from_millis(100),
        ..options()
    };
    let server = start(router(turns), short);
    let (mut sender, ended) = client(server.connect().await, 65_535).await;
    let answer = sender.send_request(request("/stream")).await.unwrap();
    let mut stream = answer.into_body().into_data_stream();
    assert_eq!(stream.next().await.unwrap().unwrap(), "0");
    // Long past both times; the other end of the same client proves that they have passed.
    let (mut other, idle_ended) = client(server.connect().await, 65_535).await;
    other.send_request(request("/echo")).await.unwrap();
    timeout(LONG, idle_ended)
        .await
        .expect("an idle connection ends")
        .unwrap();
    turn.send_modify(|turn| *turn += 1);
    assert_eq!(stream.next().await.unwrap().unwrap(), "1");
    assert!(!ended.is_finished());
    drop((stream, turn));
    server.stop().await;
}

#[tokio::test]
async fn posting_byte_by_byte_is_not_taken_for_http2() {
    let (_turn, turns) = watch::channel(0_u64);
    let server = start(router(turns), options());
    let mut stream = server.connect().await;
    for byte in
        b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi"
    {
        stream.write_all(&[*byte]).await.unwrap();
        stream.flush().await.unwrap();
    }
    let answer = rest(&mut stream).await;
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("hi"),
        "{answer}"
    );
    server.stop().await;
}

/// An answer that waits for the client's window arrives although the connection has to close.
#[tokio::test]
async fn connection_that_gives_way_writes_what_it_has_answered() {
    const ANSWER: &[u8] = &[b'x'; 60_000];
    let large = Router::new().route("/large", get(|| async { Bytes::from_static(ANSWER) }));
    let limits = HttpOptions {
        max_connections: 1,
        ..options()
    };
    let server = start(large, limits);
    let (mut sender, ended) = client(server.connect().await, 1_000).await;
    let answer = sender.send_request(request("/large")).await.unwrap();
    let mut body = answer.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    // Another client needs the place.
    let mut other = server.connect().await;
    let ask = b"GET /large HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    other.write_all(ask).await.unwrap();
    let rest_of_body = timeout(LONG, body.collect()).await.unwrap();
    let rest_of_body = rest_of_body.expect("the whole answer").to_bytes();
    assert_eq!(first.len() + rest_of_body.len(), ANSWER.len());
    timeout(LONG, ended)
        .await
        .expect("the connection ends")
        .unwrap();
    assert!(rest(&mut other).await.ends_with("xxx"));
    server.stop().await;
}

#[tokio::test]
async fn connection_ends_with_the_server() {
    let (_turn, turns) = watch::channel(0_u64);
    let server = start(router(turns), options());
    let (mut sender, ended) = client(server.connect().await, 65_535).await;
    let head = sender.send_request(request("/nothing")).await.unwrap();
    assert_eq!(head.status(), 404);
    drop(head);
    server.stop().await;
    timeout(LONG, ended)
        .await
        .expect("the connection ends")
        .unwrap();
}

#[tokio::test]
async fn broken_preface_ends_the_connection() {
    let (_turn, turns) = watch::channel(0_u64);
    let server = start(router(turns), options());
    let mut stream = server.connect().await;
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nnonsense instead of frames")
        .await
        .unwrap();
    let mut all = Vec::new();
    timeout(LONG, stream.read_to_end(&mut all))
        .await
        .unwrap()
        .unwrap();
    server.stop().await;
}
