use std::net::SocketAddr;
use std::time::{Duration, Instant};

use reqwest::RequestBuilder;
use test_kit::{ensure, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{Answer, LONG, Service, Setup, channel, next_bytes, of_client, until_closed};

async fn is_taken(post: RequestBuilder) -> bool {
    Answer::of(post).await.status.is_success()
}

#[tokio::test]
async fn too_many_posts_are_a_429_with_retry_after() {
    let setup = Setup::new()
        .set("LIMITS__POSTS_PER_SECOND", "0.5")
        .set("LIMITS__POSTS_BURST", "3")
        .set("LIMITS__LIMIT_LOOPBACK", "true");
    let service = setup.start().await;
    let channel = channel();
    for _ in 0..3 {
        service.say(&channel, "hello").await;
    }
    let answer = Answer::of(service.post(&channel).body("hello")).await;
    answer.problem(429, "rate-limit");
    assert!((1..=2).contains(&answer.retry_after()));
    // Reading is not affected: it has its own limit.
    assert_eq!(service.heads(&[&channel]).await["heads"][0]["head"], 3);
    service.stop().await;
}

#[tokio::test]
async fn clients_behind_a_trusted_proxy_have_a_limit_each() {
    let service = Setup::behind_a_proxy()
        .set("LIMITS__POSTS_PER_SECOND", "0.01")
        .set("LIMITS__POSTS_BURST", "1")
        .start()
        .await;
    let channel = channel();
    let status = async |client: &str| {
        let post = of_client(service.post(&channel).body("hello"), client);
        Answer::of(post).await.status.as_u16()
    };
    // There is no broker: the post is accepted, and published later.
    assert_eq!(status("192.0.2.1").await, 202);
    assert_eq!(status("192.0.2.2").await, 202);
    assert_eq!(status("192.0.2.2").await, 429);
    // The proxy adds its entry after the client's own.
    assert_eq!(status("192.0.2.9, 192.0.2.1").await, 429);
    service.stop().await;
}

/// Loopback has a share too: requests from it may come from everybody behind a proxy.
#[tokio::test]
async fn too_many_keys_of_one_address_are_its_429_and_nobody_elses() {
    let service = Setup::behind_a_proxy()
        .set("STORE__KEYS_MAX_COUNT", "8")
        .start()
        .await;
    let channel = channel();
    let keyed = |key: &str| {
        service
            .post(&channel)
            .header("idempotency-key", key)
            .body("hello")
    };
    for key in ["a", "b", "c", "d"] {
        assert!(is_taken(keyed(key)).await);
    }
    let answer = Answer::of(keyed("e")).await;
    let problem = answer.problem(429, "keys-full");
    assert_eq!(problem["of"], "address");
    assert!(answer.retry_after() > 60);
    service.say(&channel, "without").await;
    assert!(is_taken(of_client(keyed("f"), "192.0.2.1")).await);
    service.stop().await;
}

#[tokio::test]
async fn too_many_bytes_are_a_429_that_says_so() {
    let service = Setup::behind_a_proxy()
        .set("LIMITS__BYTES_PER_SECOND", "1KiB")
        .set("LIMITS__BYTES_BURST", "64KiB")
        .set("LIMITS__LIMIT_LOOPBACK", "true")
        .start()
        .await;
    let channel = channel();
    let large = || service.post(&channel).body("x".repeat(40_000));
    for _ in 0..2 {
        assert!(is_taken(large()).await);
    }
    let answer = Answer::of(large()).await;
    let problem = answer.problem(429, "rate-limit");
    assert_eq!(
        (&problem["limit"], &problem["of"]),
        (&"bytes".into(), &"address".into())
    );
    assert!(answer.retry_after() > 5);
    assert!(is_taken(of_client(large(), "192.0.2.1")).await);
    service.stop().await;
}

#[tokio::test]
async fn too_many_reads_are_a_429_and_nodes_are_exempt() {
    let service = Setup::behind_a_proxy()
        .set("LIMITS__READS_PER_SECOND", "0.5")
        .set("LIMITS__READS_BURST", "3")
        .set("LIMITS__NODES", "192.0.2.0/28")
        .start()
        .await;
    let channel = channel();
    let page = format!("/channels/{channel}/messages");
    let head = format!("/channels/{channel}");
    let read =
        async |path: &str, address: &str| Answer::of(of_client(service.get(path), address)).await;
    let heads = service.ask_heads(r#"{"channels":[]}"#);
    let heads = of_client(heads, "198.51.100.1");
    // Pages, heads and questions for many heads count together.
    assert_eq!(Answer::of(heads).await.status, 200);
    assert_eq!(read(&page, "198.51.100.1").await.status, 200);
    assert_eq!(read(&head, "198.51.100.1").await.status, 200);
    let answer = read(&page, "198.51.100.1").await;
    let problem = answer.problem(429, "rate-limit");
    assert_eq!(problem["limit"], "reads");
    assert!((1..=2).contains(&answer.retry_after()));
    assert_eq!(read(&page, "198.51.100.2").await.status, 200);
    for _ in 0..10 {
        assert_eq!(read(&page, "192.0.2.5").await.status, 200);
    }
    // Posting is not affected.
    let post = service.post(&channel).body("hello");
    assert!(is_taken(of_client(post, "198.51.100.1")).await);
    service.stop().await;
}

/// Sends posts except for their last byte: as many as `client` may have of 256 KiB. Returns those that
/// are read, and the answer to the next one.
async fn unfinished_bodies(service: &Service, client: &str) -> (Vec<TcpStream>, String) {
    let head = format!(
        "POST /channels/{}/messages HTTP/1.1\r\nhost: localhost\r\n\
         x-forwarded-for: {client}\r\ncontent-length: 40000\r\n\r\n",
        channel()
    );
    let unfinished = format!("{head}{}", "x".repeat(39_999));
    let mut open = Vec::new();
    // 120,000 bytes; the fourth would be more than is then free. Only that shows whether they have been read.
    for _ in 0..3 {
        let mut stream = TcpStream::connect(service.address).await.unwrap();
        stream.write_all(unfinished.as_bytes()).await.unwrap();
        open.push(stream);
    }
    let refused = eventually!(LONG, {
        let mut stream = TcpStream::connect(service.address).await?;
        stream.write_all(unfinished.as_bytes()).await?;
        let mut answer = vec![0; 12];
        let read = timeout(Duration::from_millis(200), stream.read_exact(&mut answer)).await;
        ensure!(read.is_ok(), "there is still room");
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned() + &rest)
    });
    (open, refused)
}

/// Bodies that are sent except for their last byte.
#[tokio::test]
async fn unfinished_bodies_of_one_address_leave_room_for_others() {
    let service = Setup::behind_a_proxy()
        .set("LIMITS__BODIES", "256KiB")
        .start()
        .await;
    let (mut open, refused) = unfinished_bodies(&service, "192.0.2.1").await;
    assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    assert!(refused.contains("/problems/too-many-bodies"), "{refused}");
    assert!(refused.contains("\"of\":\"address\""), "{refused}");
    let other = service.post(&channel()).body("y".repeat(40_000));
    assert!(is_taken(of_client(other, "192.0.2.2")).await);
    // Those that were there first are accepted.
    for stream in &mut open {
        stream.write_all(b"x").await.unwrap();
        assert_eq!(&next_bytes(stream).await, b"HTTP/1.1 2");
    }
    service.stop().await;
}

/// Nodes read for all their listeners, and may have the same address as clients behind a proxy on the same
/// machine.
#[tokio::test]
async fn unfinished_bodies_keep_no_node_from_asking_for_heads() {
    for nodes in ["", "127.0.0.1"] {
        let service = Setup::new()
            .set("LIMITS__BODIES", "256KiB")
            .set("LIMITS__NODES", nodes)
            .start()
            .await;
        let (open, _refused) = unfinished_bodies(&service, "-").await;
        // As long as that of a node with a thousand channels.
        let question = format!("{{\"channels\":[]}}{}", " ".repeat(40_000));
        let status = async |address: SocketAddr| {
            let ask = service.client.post(format!("http://{address}/heads"));
            let ask = ask.header("content-type", "application/json");
            Answer::of(ask.body(question.clone())).await.status.as_u16()
        };
        assert_eq!(status(service.inside).await, 200);
        let of_stranger = if nodes.is_empty() { 429 } else { 200 };
        assert_eq!(status(service.address).await, of_stranger);
        drop(open);
        service.stop().await;
    }
}

#[tokio::test]
async fn clients_that_hold_on_are_closed_and_others_are_served() {
    let setup = Setup::new()
        .set("HTTP__HEADER_TIMEOUT", "300ms")
        .set("HTTP__BODY_TIMEOUT", "300ms");
    let service = setup.start().await;
    let channel = channel();
    let mut silent = TcpStream::connect(service.address).await.unwrap();
    let mut slow = TcpStream::connect(service.address).await.unwrap();
    let head = format!(
        "POST /channels/{channel}/messages HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\nx"
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    let begun = Instant::now();
    service.say(&channel, "hello").await;
    let text = until_closed(&mut slow).await;
    assert!(text.starts_with("HTTP/1.1 408"), "{text}");
    assert!(text.contains("/problems/body-timeout"), "{text}");
    assert_eq!(until_closed(&mut silent).await, "");
    assert!(begun.elapsed() >= Duration::from_millis(250));
    assert_eq!(service.heads(&[&channel]).await["heads"][0]["head"], 1);
    service.stop().await;
}
