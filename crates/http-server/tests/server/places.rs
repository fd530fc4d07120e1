//! Limits on the number of connections at a time, in total and for one client.

use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::get;
use http_server::client_address::{Networks, TrustedProxies};
use http_server::http::{self, HttpOptions, Shares};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::{GET, LONG, SHORT, ask, echo, options, rest, start};

/// The server asks for the body, so the request is certainly under way; "hi" is the body.
const EXPECTING: &str =
    "POST /read HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n";

fn two_at_a_time() -> HttpOptions {
    HttpOptions {
        max_connections: 2,
        ..options()
    }
}

#[tokio::test]
async fn the_oldest_idle_connection_gives_its_place_to_a_new_one() {
    let server = start(echo(), two_at_a_time());
    let mut first = server.connect().await;
    let mut second = server.connect().await;
    ask(&mut first, GET, "here").await;
    ask(&mut second, GET, "here").await;
    // The second has been idle for longer now; times are measured in milliseconds.
    tokio::time::sleep(Duration::from_millis(5)).await;
    ask(&mut first, GET, "here").await;
    let mut third = server.connect().await;
    ask(&mut third, GET, "here").await;
    assert_eq!(rest(&mut second).await, "");
    ask(&mut first, GET, "here").await;
    // A connection that never sends anything is idle too: all but the last are.
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(server.connect().await);
    }
    let mut last = server.connect().await;
    ask(&mut last, GET, "here").await;
    for stream in &mut silent[..3] {
        assert_eq!(rest(stream).await, "");
    }
    drop((first, third, silent, last));
    server.stop().await;
}

/// Far more than the sockets' buffers hold.
const LARGE: usize = 16 << 20;

#[tokio::test]
async fn connection_whose_answer_is_still_being_written_is_not_idle() {
    let large = Router::new().route(
        "/large",
        get(|| async { Bytes::from_static(&[b'x'; LARGE]) }),
    );
    let server = start(echo().merge(large), two_at_a_time());
    let mut slow = server.connect().await;
    let request = "GET /large HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let head = ask(&mut slow, request, "x").await;
    let read = head.split_once("\r\n\r\n").unwrap().1.len();
    // Idle for less time than the slow one would be.
    let mut idle = server.connect().await;
    ask(&mut idle, GET, "here").await;
    ask(&mut server.connect().await, GET, "here").await;
    assert_eq!(rest(&mut idle).await, "");
    let mut left = vec![0; LARGE - read];
    let answer = timeout(LONG, slow.read_exact(&mut left)).await;
    answer.unwrap().expect("the whole answer");
    // It is idle as soon as the answer is written.
    let mut others = [server.connect().await, server.connect().await];
    for other in &mut others {
        ask(other, GET, "here").await;
    }
    assert_eq!(rest(&mut slow).await, "");
    drop(others);
    server.stop().await;
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_while_none_is_idle() {
    let server = start(echo(), two_at_a_time());
    let mut first = server.connect().await;
    let mut second = server.connect().await;
    for stream in [&mut first, &mut second] {
        ask(stream, EXPECTING, "100 Continue\r\n\r\n").await;
    }
    let mut third = server.connect().await;
    third.write_all(GET.as_bytes()).await.unwrap();
    let mut byte = [0; 1];
    let early = timeout(SHORT, third.peek(&mut byte)).await;
    assert!(early.is_err(), "answered while two others were busy");
    ask(&mut first, "hi", "\r\n\r\n2").await;
    timeout(LONG, third.peek(&mut byte)).await.unwrap().unwrap();
    ask(&mut second, "hi", "\r\n\r\n2").await;
    drop((first, second, third));
    server.stop().await;
}

#[tokio::test]
async fn client_at_its_share_takes_no_place_of_another() {
    let shares = Shares {
        most: 2,
        limits_loopback: true,
        proxies: TrustedProxies::from("127.0.0.2".parse::<Networks>().unwrap()),
    };
    let limits = HttpOptions {
        max_connections: 8,
        shares,
        ..options()
    };
    let server = start(echo(), limits);
    // A proxy stands for many clients and has no share.
    let mut others = Vec::new();
    for _ in 0..3 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let mut other = socket.connect(server.addr).await.unwrap();
        ask(&mut other, GET, "here").await;
        others.push(other);
    }
    let mut busy = server.connect().await;
    ask(&mut busy, EXPECTING, "100 Continue\r\n\r\n").await;
    let mut idle = server.connect().await;
    ask(&mut idle, GET, "here").await;
    // Its own idle connection is closed, not the others' older ones.
    let mut third = server.connect().await;
    ask(&mut third, EXPECTING, "100 Continue\r\n\r\n").await;
    assert_eq!(rest(&mut idle).await, "");
    // None of its own is idle: it gets a 429.
    let mut fourth = server.connect().await;
    fourth.write_all(GET.as_bytes()).await.unwrap();
    let answer = rest(&mut fourth).await;
    assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("\r\nretry-after: "), "{head}");
    let problem: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(problem["type"], "/problems/too-many-connections");
    for other in &mut others {
        ask(other, GET, "here").await;
    }
    ask(&mut busy, "hi", "\r\n\r\n2").await;
    drop((busy, third, others));
    server.stop().await;
}

#[tokio::test]
async fn taken_port_is_said_so() {
    let first = http::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let text = http::bind(first.local_addr().unwrap())
        .unwrap_err()
        .to_string();
    assert!(text.contains("the port is taken"), "{text}");
    let text = http::bind("203.0.113.1:8080".parse().unwrap())
        .unwrap_err()
        .to_string();
    assert!(text.contains("no such address"), "{text}");
    drop(
        TcpStream::connect(first.local_addr().unwrap())
            .await
            .unwrap(),
    );
}
