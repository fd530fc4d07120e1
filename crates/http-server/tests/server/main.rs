//! Tests of the HTTP server over real sockets: what strangers do to it, and how it ends.

mod http2;
mod limits;
mod places;
mod requests;
mod shutdown;
mod takeover;
mod tls;
mod unread;

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::{get, post};
use http_server::http::{self, HttpOptions};
use http_server::router;
use prometheus_client::metrics::counter::Counter;
use service_kit::lifecycle::Lifecycle;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Long enough that only a failure reaches it.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// Long enough for what goes at once.
pub(crate) const SHORT: Duration = Duration::from_millis(300);

pub(crate) const GET: &str = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";

pub(crate) struct Running {
    pub(crate) addr: SocketAddr,
    pub(crate) life: Lifecycle,
}

/// Short time limits, so that tests need not wait long. Each test sets those that matter to it.
pub(crate) fn options() -> HttpOptions {
    HttpOptions {
        header_timeout: LONG,
        idle_timeout: LONG,
        body_timeout: LONG,
        write_stall: LONG,
        ..HttpOptions::default()
    }
}

/// Says "here", and how long a body was that it read; `/refuse` reads none.
pub(crate) fn echo() -> Router {
    Router::new()
        .route("/", get(|| async { "here" }))
        .route(
            "/read",
            post(|body: Bytes| async move { body.len().to_string() }),
        )
        .route("/refuse", post(|| async { StatusCode::PAYLOAD_TOO_LARGE }))
}

pub(crate) fn start(router: Router, options: HttpOptions) -> Running {
    let life = Lifecycle::new();
    let listener = http::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = listener.local_addr().unwrap();
    let server = life.clone();
    life.spawn("http", async move {
        http::serve(listener, router::layered(router), options, &server).await;
    });
    Running { addr, life }
}

/// Waits until the counter has reached `count`.
pub(crate) async fn counted(counter: &Counter, count: u64) {
    timeout(LONG, async {
        while counter.get() < count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("it is counted");
}

impl Running {
    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    pub(crate) async fn stop(self) {
        self.life.shutdown();
        assert_eq!(self.life.wait(LONG).await, Ok(()));
    }
}

/// Reads everything until the server closes; a reset counts as the end.
pub(crate) async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    timeout(LONG, async {
        while stream.read_buf(&mut bytes).await.unwrap_or(0) > 0 {}
    })
    .await
    .expect("the server closes the connection");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Sends `request` and reads until the answer ends with `end`.
pub(crate) async fn ask(stream: &mut TcpStream, request: &str, end: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    timeout(LONG, async {
        while !bytes.ends_with(end.as_bytes()) {
            assert!(
                stream.read_buf(&mut bytes).await.unwrap() > 0,
                "closed after {bytes:?}"
            );
        }
    })
    .await
    .expect("an answer");
    String::from_utf8_lossy(&bytes).into_owned()
}
