//! How a server ends.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use futures_util::{StreamExt, stream};
use service_kit::lifecycle::Lifecycle;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::{LONG, ask, options, rest, start};

const GET: &str = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";

#[tokio::test]
async fn request_under_way_is_answered_and_nothing_new_is_taken() {
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (began, goes_on) = (Arc::clone(&begun), Arc::clone(&go_on));
    let slow = move || async move {
        began.notify_one();
        goes_on.notified().await;
        "slow but sure"
    };
    let router = Router::new()
        .route("/", get(|| async { "here" }))
        .route("/slow", get(slow));
    let server = start(router, options());
    let mut idle = server.connect().await;
    ask(&mut idle, GET, "here").await;
    let mut busy = server.connect().await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    begun.notified().await;

    server.life.shutdown();
    assert_eq!(
        rest(&mut idle).await,
        "",
        "an idle connection is closed at once"
    );
    while TcpStream::connect(server.addr).await.is_ok() {
        tokio::task::yield_now().await;
    }
    go_on.notify_one();
    assert!(rest(&mut busy).await.ends_with("slow but sure"));
    assert_eq!(server.life.wait(LONG).await, Ok(()));
}

#[tokio::test]
async fn endless_stream_is_dropped_by_the_hard_token() {
    let endless = || async {
        Body::from_stream(
            stream::once(async { Ok::<_, Infallible>("begun") }).chain(stream::pending()),
        )
    };
    let server = start(Router::new().route("/", get(endless)), options());
    let mut stream = server.connect().await;
    ask(&mut stream, GET, "begun\r\n").await;
    server.life.shutdown();
    let ended = server.life.wait(Duration::from_millis(100));
    assert_eq!(timeout(LONG, ended).await.unwrap(), Ok(()));
    assert_eq!(rest(&mut stream).await, "");
}

#[tokio::test]
async fn stream_that_watches_the_soft_token_ends_cleanly() {
    let life = Lifecycle::new();
    let soft = life.soft();
    let until_shutdown = move || {
        let soft = soft.clone();
        async move {
            let last = async move {
                soft.cancelled().await;
                Ok::<_, Infallible>("goodbye")
            };
            Body::from_stream(
                stream::once(async { Ok::<_, Infallible>("begun ") }).chain(stream::once(last)),
            )
        }
    };
    let listener = http_server::http::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = listener.local_addr().unwrap();
    let server = life.clone();
    life.spawn("http", async move {
        let router = Router::new().route("/", get(until_shutdown));
        http_server::http::serve(listener, router, options(), &server).await;
    });
    let mut stream = TcpStream::connect(addr).await.unwrap();
    ask(&mut stream, GET, "begun \r\n").await;
    life.shutdown();
    assert!(rest(&mut stream).await.ends_with("goodbye\r\n0\r\n\r\n"));
    assert_eq!(life.wait(LONG).await, Ok(()));
}
