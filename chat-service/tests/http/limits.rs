use std::time::{Duration, Instant};

use test_kit::{ensure, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{Answer, LONG, Setup, channel};

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
    let seconds: u64 = answer.header("retry-after").parse().unwrap();
    assert!((1..=2).contains(&seconds), "{seconds}");
    // Reading is not affected: it has a limit of its own.
    assert_eq!(service.heads(&[&channel]).await["heads"][0]["head"], 3);
    service.stop().await;
}

#[tokio::test]
async fn clients_behind_a_trusted_proxy_have_a_limit_each() {
    let setup = || {
        Setup::new()
            .set("LIMITS__POSTS_PER_SECOND", "0.01")
            .set("LIMITS__POSTS_BURST", "1")
    };
    let service = setup()
        .set("LIMITS__TRUSTED_PROXIES", "127.0.0.1")
        .start()
        .await;
    let channel = channel();
    let status = async |client: &str| {
        let post = service.post(&channel).header("x-forwarded-for", client);
        Answer::of(post.body("hello")).await.status.as_u16()
    };
    // There is no broker: taken, and published later.
    assert_eq!(status("192.0.2.1").await, 202);
    assert_eq!(status("192.0.2.2").await, 202);
    assert_eq!(status("192.0.2.2").await, 429);
    // What a client writes itself stands before what the proxy adds.
    assert_eq!(status("192.0.2.9, 192.0.2.1").await, 429);
    service.stop().await;
}

/// Loopback too has a share of its own: what comes from it may be everybody behind a proxy.
#[tokio::test]
async fn too_many_keys_of_one_address_are_its_429_and_nobody_elses() {
    let service = Setup::new()
        .set("STORE__KEYS_MAX_COUNT", "8")
        .set("LIMITS__TRUSTED_PROXIES", "127.0.0.1")
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
        assert!(Answer::of(keyed(key)).await.status.is_success());
    }
    let answer = Answer::of(keyed("e")).await;
    let problem = answer.problem(429, "keys-full");
    assert_eq!(problem["of"], "address");
    assert!(answer.header("retry-after").parse::<u64>().unwrap() > 60);
    service.say(&channel, "without").await;
    let other = keyed("f").header("x-forwarded-for", "192.0.2.1");
    assert!(Answer::of(other).await.status.is_success());
    service.stop().await;
}

#[tokio::test]
async fn too_many_bytes_are_a_429_that_says_so() {
    let service = Setup::new()
        .set("LIMITS__BYTES_PER_SECOND", "1KiB")
        .set("LIMITS__BYTES_BURST", "64KiB")
        .set("LIMITS__LIMIT_LOOPBACK", "true")
        .set("LIMITS__TRUSTED_PROXIES", "127.0.0.1")
        .start()
        .await;
    let channel = channel();
    let large = || service.post(&channel).body("x".repeat(40_000));
    for _ in 0..2 {
        assert!(Answer::of(large()).await.status.is_success());
    }
    let answer = Answer::of(large()).await;
    let problem = answer.problem(429, "rate-limit");
    assert_eq!(
        (&problem["limit"], &problem["of"]),
        (&"bytes".into(), &"address".into())
    );
    assert!(answer.header("retry-after").parse::<u64>().unwrap() > 5);
    let other = large().header("x-forwarded-for", "192.0.2.1");
    assert!(Answer::of(other).await.status.is_success());
    service.stop().await;
}

#[tokio::test]
async fn too_many_reads_are_a_429_and_nodes_are_exempt() {
    let service = Setup::new()
        .set("LIMITS__READS_PER_SECOND", "0.5")
        .set("LIMITS__READS_BURST", "3")
        .set("LIMITS__NODES", "192.0.2.0/28")
        .set("LIMITS__TRUSTED_PROXIES", "127.0.0.1")
        .start()
        .await;
    let channel = channel();
    let page = format!("/channels/{channel}/messages");
    let head = format!("/channels/{channel}");
    let read = async |path: &str, address: &str| {
        Answer::of(service.get(path).header("x-forwarded-for", address)).await
    };
    let heads = service.ask_heads(r#"{"channels":[]}"#);
    let heads = heads.header("x-forwarded-for", "198.51.100.1");
    // Pages, heads and questions for many heads count together.
    assert_eq!(Answer::of(heads).await.status, 200);
    assert_eq!(read(&page, "198.51.100.1").await.status, 200);
    assert_eq!(read(&head, "198.51.100.1").await.status, 200);
    let answer = read(&page, "198.51.100.1").await;
    let problem = answer.problem(429, "rate-limit");
    assert_eq!(problem["limit"], "reads");
    let seconds: u64 = answer.header("retry-after").parse().unwrap();
    assert!((1..=2).contains(&seconds), "{seconds}");
    assert_eq!(read(&page, "198.51.100.2").await.status, 200);
    for _ in 0..10 {
        assert_eq!(read(&page, "192.0.2.5").await.status, 200);
    }
    // Posting is not affected.
    let post = service
        .post(&channel)
        .header("x-forwarded-for", "198.51.100.1");
    assert!(Answer::of(post.body("hello")).await.status.is_success());
    service.stop().await;
}

/// Bodies that are sent to the last byte but one.
#[tokio::test]
async fn unfinished_bodies_of_one_address_leave_room_for_others() {
    let service = Setup::new()
        .set("LIMITS__MESSAGE", "16KiB")
        .set("LIMITS__BODIES", "64KiB")
        .set("LIMITS__TRUSTED_PROXIES", "127.0.0.1")
        .start()
        .await;
    let channel = channel();
    let head = format!(
        "POST /channels/{channel}/messages HTTP/1.1\r\nhost: localhost\r\n\
         x-forwarded-for: 192.0.2.1\r\ncontent-length: 10000\r\n\r\n"
    );
    let unfinished = format!("{head}{}", "x".repeat(9_999));
    let mut open = Vec::new();
    // 30,000 bytes; the fourth would be more than is free then. Whether they have been read is only to
    // be seen by that.
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
    assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    assert!(refused.contains("/problems/too-many-bodies"), "{refused}");
    assert!(refused.contains("\"of\":\"address\""), "{refused}");
    let other = service
        .post(&channel)
        .header("x-forwarded-for", "192.0.2.2");
    let other = Answer::of(other.body("y".repeat(10_000))).await;
    assert!(other.status.is_success());
    // Those that were there first are taken.
    for stream in &mut open {
        stream.write_all(b"x").await.unwrap();
        let mut answer = [0; 10];
        timeout(LONG, stream.read_exact(&mut answer))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&answer, b"HTTP/1.1 2");
    }
    service.stop().await;
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
    let mut text = String::new();
    timeout(LONG, slow.read_to_string(&mut text))
        .await
        .unwrap()
        .unwrap();
    assert!(text.starts_with("HTTP/1.1 408"), "{text}");
    assert!(text.contains("/problems/body-timeout"), "{text}");
    let mut nothing = Vec::new();
    timeout(LONG, silent.read_to_end(&mut nothing))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(nothing, b"");
    assert!(begun.elapsed() >= Duration::from_millis(250));
    assert_eq!(service.heads(&[&channel]).await["heads"][0]["head"], 1);
    service.stop().await;
}
