//! HTTP/1.1 requests that are answered before their body was read.

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{get, post};
use tokio::io::AsyncWriteExt;

use crate::{GET, Running, ask, options, rest, start};

/// Refuses posts without reading their body.
fn refusing() -> Running {
    let refuse = || async { (StatusCode::TOO_MANY_REQUESTS, "refused") };
    let router = Router::new()
        .route("/", get(|| async { "here" }))
        .route("/", post(refuse));
    start(router, options())
}

fn head(fields: &str) -> String {
    format!("POST / HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n\r\n")
}

#[tokio::test]
async fn small_rest_of_a_body_keeps_the_connection() {
    let server = refusing();
    let mut stream = server.connect().await;
    let small = "x".repeat(10_000);
    let length = head("content-length: 10000");
    let chunked = head("transfer-encoding: chunked");
    for whole in [
        format!("{length}{small}"),
        format!("{chunked}2710\r\n{small}\r\n0\r\n\r\n"),
    ] {
        let refused = ask(&mut stream, &whole, "refused").await;
        assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
        assert!(!refused.contains("connection:"), "{refused}");
        ask(&mut stream, GET, "here").await;
    }
    // The body comes late, but soon enough.
    stream.write_all(length.as_bytes()).await.unwrap();
    let refused = ask(&mut stream, &small, "refused").await;
    assert!(!refused.contains("connection:"), "{refused}");
    ask(&mut stream, GET, "here").await;
    drop(stream);
    server.stop().await;
}

#[tokio::test]
async fn answer_that_ends_the_connection_says_so() {
    let server = refusing();
    let large = "x".repeat(70_000);
    for request in [
        head("content-length: 1000000"),
        head("content-length: 5\r\nexpect: 100-continue"),
        format!("{}11170\r\n{large}\r\n", head("transfer-encoding: chunked")),
    ] {
        let mut stream = server.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let refused = rest(&mut stream).await;
        assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
        assert!(refused.contains("\r\nconnection: close\r\n"), "{refused}");
        assert!(refused.ends_with("refused"), "{refused}");
    }
    server.stop().await;
}
