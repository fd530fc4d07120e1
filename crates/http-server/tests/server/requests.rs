//! Limits of a single request, and the answers to requests that exceed them.

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::routing::get;
use futures_util::stream;
use tokio::io::AsyncWriteExt;

use crate::{GET, ask, echo, options, rest, start};

#[tokio::test]
async fn head_over_the_limit_is_a_431() {
    let server = start(echo(), options());
    let mut stream = server.connect().await;
    let long = "x".repeat(100 * 1024);
    let request = format!("GET / HTTP/1.1\r\nhost: localhost\r\nx-long: {long}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 431"));

    // 30 KiB, for example a cursor of many channels, is fine.
    let long = "x".repeat(30 * 1024);
    let request = format!("GET / HTTP/1.1\r\nhost: localhost\r\nlast-event-id: {long}\r\n\r\n");
    ask(&mut server.connect().await, &request, "here").await;
    server.stop().await;
}

#[tokio::test]
async fn target_over_the_limit_is_a_414_or_431() {
    let server = start(echo(), options());
    for (length, status) in [(20 * 1024, "HTTP/1.1 414"), (60 * 1024, "HTTP/1.1 431")] {
        let mut stream = server.connect().await;
        let request = format!(
            "GET /?{} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
            "x".repeat(length)
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with(status), "{length}: {answer:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn nonsense_is_a_400() {
    let server = start(echo(), options());
    for nonsense in [
        "\u{16}\u{3}\u{1} hello tls\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
    ] {
        let mut stream = server.connect().await;
        stream.write_all(nonsense.as_bytes()).await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(
            answer.starts_with("HTTP/1.1 400"),
            "{nonsense:?}: {answer:?}"
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn refusal_arrives_although_the_body_was_not_read() {
    let server = start(echo(), options());
    for _ in 0..20 {
        let mut stream = server.connect().await;
        let body = "x".repeat(900_000);
        let request = format!(
            "POST /refuse HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn http_1_0_gets_an_answer_that_ends_with_the_connection() {
    let stream_of =
        || async { Body::from_stream(stream::iter(["one ", "two"].map(Ok::<_, Infallible>))) };
    let server = start(Router::new().route("/", get(stream_of)), options());
    let mut stream = server.connect().await;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    assert!(!answer.to_ascii_lowercase().contains("chunked"), "{answer}");
    assert!(answer.ends_with("\r\n\r\none two"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn peer_address_is_known_to_handlers() {
    let whoami = |ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { format!("<{peer}>") };
    let server = start(Router::new().route("/", get(whoami)), options());
    let mut stream = server.connect().await;
    let mine = format!("<{}>", stream.local_addr().unwrap());
    ask(&mut stream, GET, &mine).await;
    server.stop().await;
}
