//! How long a client may take: to say something, to go on, to read.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::get;
use futures_util::stream;
use http_server::http::HttpOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{interval, timeout};

use crate::{GET, LONG, SHORT, ask, echo, options, rest, start};

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
