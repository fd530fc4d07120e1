//! Running out of file descriptors. In a binary of its own, because it lowers the process's limit.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http_server::http::{self, HttpOptions};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use service_kit::lifecycle::Lifecycle;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

/// Few enough to use up quickly, enough for the test harness.
const DESCRIPTORS: u64 = 64;
const REQUEST_LATE: &[u8] = b"GET /late HTTP/1.1\r\nhost: localhost\r\n\r\n";

#[tokio::test]
async fn accepting_goes_on_when_descriptors_are_free_again() {
    let life = Lifecycle::new();
    let listener = http::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = listener.local_addr().unwrap();
    let server = life.clone();
    let (came, goes_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let late = (came.clone(), goes_on.clone());
    life.spawn("http", async move {
        let router = Router::new().route("/", get(|| async { "here" })).route(
            "/late",
            get(|| async move {
                late.0.notify_one();
                late.1.notified().await;
                "here"
            }),
        );
        http::serve(listener, router, HttpOptions::default(), &server).await;
    });

    let mut before = TcpStream::connect(addr).await.unwrap();
    assert!(ask(&mut before).await.contains("here"));
    before.write_all(REQUEST_LATE).await.unwrap();
    came.notified().await;

    let old = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(DESCRIPTORS),
            maximum: old.maximum,
        },
    )
    .unwrap();
    // Client and server share the limit: the client's last socket leaves none for its other end.
    let mut held = Vec::new();
    while let Ok(stream) = TcpStream::connect(addr).await {
        held.push(stream);
    }
    assert!(held.len() > 10, "only {} connections", held.len());
    // Idle connections are closed; this one waits for an answer.
    goes_on.notify_one();
    assert!(
        answer(&mut before).await.contains("here"),
        "a request under way is not affected"
    );

    // The last one was not accepted so far; now that descriptors are free again, it is.
    let mut last = held.pop().unwrap();
    held.truncate(5);
    assert!(
        timeout(Duration::from_secs(10), ask(&mut last))
            .await
            .unwrap()
            .contains("here")
    );

    assert_eq!(http::raise_file_limit().unwrap(), old.maximum);
    assert_eq!(getrlimit(Resource::Nofile).current, old.maximum);
    drop((held, last, before));
    life.shutdown();
    assert_eq!(life.wait(Duration::from_secs(10)).await, Ok(()));
}

async fn ask(stream: &mut TcpStream) -> String {
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    answer(stream).await
}

async fn answer(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"here") {
        if stream.read_buf(&mut text).await.unwrap() == 0 {
            break;
        }
    }
    String::from_utf8(text).unwrap()
}
