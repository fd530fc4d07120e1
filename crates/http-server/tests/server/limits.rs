//! What a client may hold, and for how long.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ConnectInfo;
use axum::http::StatusCode;
use axum::routing::{get, post};
use futures_util::stream;
use http_server::client_address::{Networks, TrustedProxies};
use http_server::http::{self, HttpOptions, Shares};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{interval, timeout};

use crate::{LONG, ask, options, rest, start};

const SHORT: Duration = Duration::from_millis(300);
const GET: &str = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
/// The server asks for the body, so the request is certainly under way; "hi" is the body.
const EXPECTING: &str =
    "POST /read HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n";

fn echo() -> Router {
    Router::new()
        .route("/", get(|| async { "here" }))
        .route(
            "/read",
            post(|body: Bytes| async move { body.len().to_string() }),
        )
        .route("/refuse", post(|| async { StatusCode::PAYLOAD_TOO_LARGE }))
}

#[tokio::test]
async fn client_that_says_nothing_is_closed() {
    let server = start(
        echo(),
        HttpOptions {
            header_timeout: SHORT,
            ..options()
        },
    );
    let begun = Instant::now();
    assert_eq!(rest(&mut server.connect().await).await, "");
    assert!(begun.elapsed() >= SHORT);
    server.stop().await;
}

/// Sends `first` and then a byte now and then until the server closes; returns the server's answer.
async fn drip(stream: TcpStream, first: &str) -> String {
    let (mut reader, mut writer) = stream.into_split();
    writer.write_all(first.as_bytes()).await.unwrap();
    let drip = async {
        let mut pause = interval(Duration::from_millis(20));
        while writer.write_all(b"x").await.is_ok() {
            pause.tick().await;
        }
    };
    let read = async {
        let mut bytes = Vec::new();
        let _reset = reader.read_to_end(&mut bytes).await;
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let both = timeout(LONG, async { tokio::join!(read, drip) });
    both.await.expect("the server closes the connection").0
}

#[tokio::test]
async fn head_that_comes_drop_by_drop_is_closed() {
    let server = start(
        echo(),
        HttpOptions {
            header_timeout: SHORT,
            ..options()
        },
    );
    let begun = Instant::now();
    assert_eq!(drip(server.connect().await, "").await, "");
    assert!(begun.elapsed() >= SHORT);
    server.stop().await;
}

#[tokio::test]
async fn idle_connection_outlives_the_header_time_and_ends_at_its_own() {
    let idle = SHORT * 4;
    let server = start(
        echo(),
        HttpOptions {
            header_timeout: SHORT,
            idle_timeout: idle,
            ..options()
        },
    );
    let mut stream = server.connect().await;
    ask(&mut stream, GET, "here").await;
    tokio::time::sleep(SHORT * 2).await;
    ask(&mut stream, GET, "here").await;
    let begun = Instant::now();
    assert_eq!(rest(&mut stream).await, "");
    assert!(begun.elapsed() >= idle - SHORT, "{:?}", begun.elapsed());

    // A head that has begun on an idle connection has the header time limit, not the idle one.
    let mut stream = server.connect().await;
    ask(&mut stream, GET, "here").await;
    stream.write_all(b"GET / HT").await.unwrap();
    let begun = Instant::now();
    rest(&mut stream).await;
    assert!(begun.elapsed() < idle, "{:?}", begun.elapsed());
    server.stop().await;
}

#[tokio::test]
async fn body_that_comes_drop_by_drop_is_closed() {
    let server = start(
        echo(),
        HttpOptions {
            body_timeout: SHORT,
            ..options()
        },
    );
    let head = "POST /read HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n";
    let answer = drip(server.connect().await, head).await;
    assert!(
        answer.starts_with("HTTP/1.1 400") || answer.is_empty(),
        "{answer}"
    );
    server.stop().await;
}

#[tokio::test]
async fn others_are_not_affected_by_those_that_hold_on() {
    let server = start(echo(), options());
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(server.connect().await);
    }
    let begun = Instant::now();
    ask(&mut server.connect().await, GET, "here").await;
    assert!(begun.elapsed() < Duration::from_secs(2));
    drop(silent);
    server.stop().await;
}

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
async fn client_that_takes_nothing_is_disconnected_and_a_slow_one_is_not() {
    struct Gone(mpsc::UnboundedSender<()>);
    impl Drop for Gone {
        fn drop(&mut self) {
            // The test may be over.
            let _gone = self.0.send(());
        }
    }
    let (sender, mut ended) = mpsc::unbounded_channel();
    let flood = move || {
        let gone = Gone(sender.clone());
        async move {
            Body::from_stream(stream::unfold(gone, |gone| async {
                Some((
                    Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 16 * 1024])),
                    gone,
                ))
            }))
        }
    };
    let limits = HttpOptions {
        write_stall: SHORT * 5,
        send_buffer: Some(16 * 1024),
        ..options()
    };
    let server = start(Router::new().route("/", get(flood)), limits);

    let mut slow = server.connect().await;
    slow.write_all(GET.as_bytes()).await.unwrap();
    // Reads something within each stall time, several times.
    let mut taken = vec![0; 512 * 1024];
    for _ in 0..8 {
        timeout(
            LONG,
            tokio::io::AsyncReadExt::read_exact(&mut slow, &mut taken),
        )
        .await
        .unwrap()
        .unwrap();
        tokio::time::sleep(SHORT).await;
    }
    assert!(ended.try_recv().is_err(), "the slow one is still served");

    let begun = Instant::now();
    timeout(LONG, ended.recv())
        .await
        .expect("the one that stopped reading is disconnected")
        .unwrap();
    assert!(begun.elapsed() >= SHORT);
    server.stop().await;
}

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
async fn peer_address_is_known_to_handlers() {
    let whoami = |ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { format!("<{peer}>") };
    let server = start(Router::new().route("/", get(whoami)), options());
    let mut stream = server.connect().await;
    let mine = format!("<{}>", stream.local_addr().unwrap());
    ask(&mut stream, GET, &mine).await;
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
