//! Tests of broadcast-sse over HTTP, with the real broker but without chat-service: what it answers by
//! itself. `crates/dev/system-tests` tests the whole chain.

use std::time::Duration;

use broadcast_sse::{Config, Server};
use broker::{Broker, BrokerConfig};
use http_server::operations::Operations;
use reqwest::{Client, Method, Response};
use serde_json::Value;
use service_kit::lifecycle::Lifecycle;
use test_kit::{ensure, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const CHANNEL: &str = "c3743620-4b1b-4c2b-9d80-05b0e5a2c1f0";

struct Running {
    address: String,
    life: Lifecycle,
    operations: Operations,
}

async fn start(settings: &[(&str, &str)]) -> Running {
    let life = Lifecycle::new();
    let listen = "127.0.0.1:0".parse().unwrap();
    let broker = Broker::bind(BrokerConfig {
        listen,
        ..BrokerConfig::default()
    })
    .await
    .unwrap();
    let mqtt = format!("mqtt://{}", broker.local_addr());
    let broker_life = life.clone();
    life.spawn("broker", async move { broker.run(&broker_life).await });
    let own = [
        ("HARK_LISTEN", "127.0.0.1:0"),
        ("HARK_MQTT__URL", &mqtt),
        // Nothing listens on the discard port: history is away.
        ("HARK_HISTORY__URL", "http://127.0.0.1:9"),
    ];
    let environment = own
        .iter()
        .chain(settings)
        .map(|&(k, v)| (k.to_owned(), v.to_owned()));
    let config = Config::load(None, environment).unwrap();
    let operations = Operations::new();
    let server = Server::bind(config, operations.clone()).unwrap();
    let address = server.local_addr().to_string();
    life.spawn("broadcast-sse", server.run(life.clone()));
    Running {
        address,
        life,
        operations,
    }
}

impl Running {
    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        let mut request = Client::new().get(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }

    async fn stop(self) {
        self.life.shutdown();
        self.life.wait(Duration::from_secs(10)).await.unwrap();
    }
}

/// The first bytes of a stream, which are always a ping with `retry:`.
async fn first_chunk(mut stream: Response) -> String {
    let chunk = stream
        .chunk()
        .await
        .unwrap()
        .expect("a stream begins with retry:");
    String::from_utf8(chunk.to_vec()).unwrap()
}

/// Every stream begins and ends with a ping that says when to reconnect, never with a block of only
/// `retry:`, which several clients turn into an empty event. Returns its milliseconds.
fn retry_of(block: &str) -> u64 {
    let (retry, ping) = block.split_once('\n').unwrap_or_default();
    assert_eq!(ping.trim_end(), "event: ping\ndata: {}", "{block}");
    let milliseconds = retry.strip_prefix("retry: ").map(str::parse);
    milliseconds.expect("a ping with retry:").unwrap()
}

/// Checks that the stream ends with the time to reconnect.
fn assert_says_good_bye(rest: &str) {
    let last = rest.trim_end().rsplit("\n\n").next();
    assert!((500..4_000).contains(&retry_of(last.unwrap())), "{rest}");
}

/// What comes, up to and with `end`.
async fn read_until(socket: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    while !text.contains(end) {
        let mut bytes = [0; 512];
        let read = socket.read(&mut bytes).await.unwrap();
        assert_ne!(read, 0, "ended early: {text}");
        text.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
    }
    text
}

#[tokio::test]
async fn what_will_not_get_better_is_a_4xx_that_says_what_to_change() {
    let sse = start(&[("HARK_HUB__MAX_CHANNELS", "2")]).await;
    let other = |n: u8| format!("c=00000000-0000-4000-8000-00000000000{n}");
    let many = format!("/events?{}&{}&{}", other(1), other(2), other(3));
    for (path, status, word) in [
        ("/events", 400, "?c=<uuid>"),
        ("/?x=1", 400, "?c=<uuid>"),
        ("/events?c=lobby", 400, "UUID"),
        (
            &format!("/events?c={CHANNEL}&since=yesterday"),
            400,
            "since",
        ),
        (&format!("/events?c={CHANNEL}&last=-1"), 400, "last"),
        (&many, 400, "at most 2"),
        ("/chat/receive/lobby", 400, "UUID"),
        ("/nowhere", 404, "/nowhere"),
    ] {
        let origin = "http://localhost:8000";
        let answer = sse.get(path, &[("origin", origin)]).await;
        assert_eq!(answer.status(), status, "{path}");
        // A page must be able to read why, so that it can tell its user.
        assert_eq!(
            answer.headers()["access-control-allow-origin"],
            origin,
            "{path}"
        );
        assert_eq!(
            answer.headers()["content-type"],
            "application/problem+json",
            "{path}"
        );
        let problem: Value = answer.json().await.unwrap();
        assert!(
            problem["detail"].as_str().unwrap().contains(word),
            "{path}: {problem}"
        );
    }
    let post = Client::new().request(Method::POST, format!("http://{}/events", sse.address));
    let refused = post.send().await.unwrap();
    assert_eq!(refused.status(), 405);
    assert!(refused.headers()["allow"].to_str().unwrap().contains("GET"));
    sse.stop().await;
}

#[tokio::test]
async fn passing_trouble_is_never_a_status_that_browsers_give_up_on() {
    let sse = start(&[]).await;
    let path = format!("/events?c={CHANNEL}");
    for id in ["", "not-ours", "AQBKmWgAAA"] {
        let stream = sse.get(&path, &[("last-event-id", id)]).await;
        assert_eq!(stream.status(), 200);
        let headers = stream.headers();
        assert_eq!(headers["content-type"], "text/event-stream");
        assert_eq!(headers["cache-control"], "no-store, no-transform");
        assert_eq!(headers["x-accel-buffering"], "no");
        assert!((1_000..3_000).contains(&retry_of(&first_chunk(stream).await)));
    }
    let readiness = sse.operations.readiness().await;
    let history = readiness
        .iter()
        .find(|(name, _)| name == "history")
        .unwrap();
    assert!(
        format!("{:?}", history.1).contains("chat-service"),
        "{history:?}"
    );
    sse.stop().await;
}

#[tokio::test]
async fn a_full_node_sends_the_next_one_away_for_a_while() {
    let sse = start(&[("HARK_HUB__MAX_STREAMS", "1")]).await;
    let path = format!("/events?c={CHANNEL}");
    let first = sse.get(&path, &[]).await;
    let second = sse.get(&path, &[]).await;
    assert_eq!(second.status(), 200);
    let body = second.text().await.unwrap();
    assert!((10_000..30_000).contains(&retry_of(&body)), "{body}");
    drop(first);
    sse.stop().await;
}

#[tokio::test]
async fn an_address_with_its_share_of_streams_takes_none_of_another() {
    let sse = start(&[
        ("HARK_HUB__MAX_STREAMS", "4"),
        ("HARK_LIMITS__TRUSTED_PROXIES", "127.0.0.1"),
    ])
    .await;
    let path = format!("/events?c={CHANNEL}");
    let greedy = ("x-forwarded-for", "192.0.2.1");
    let mut open = Vec::new();
    for _ in 0..2 {
        open.push(sse.get(&path, &[greedy]).await);
    }
    let refused = sse.get(&path, &[greedy]).await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["retry-after"], "10");
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(problem["type"], "/problems/too-many-streams");
    // An EventSource would not reconnect after that.
    let browser = ("accept", "text/event-stream");
    let refused = sse.get(&path, &[greedy, browser]).await;
    assert_eq!(refused.status(), 200);
    let body = refused.text().await.unwrap();
    assert!((10_000..30_000).contains(&retry_of(&body)), "{body}");
    // All IPv6 addresses of a /64 are one client.
    for (client, status) in [
        ("2001:db8::1", 200),
        ("2001:db8::2", 200),
        ("2001:db8::3", 200),
    ] {
        let stream = sse.get(&path, &[("x-forwarded-for", client)]).await;
        assert_eq!(stream.status(), status, "{client}");
        open.push(stream);
    }
    drop(open);
    sse.stop().await;
}

#[tokio::test]
async fn every_stream_gets_pings_and_a_spread_good_bye() {
    let sse = start(&[("HARK_HUB__PING", "1s")]).await;
    let mut stream = sse.get(&format!("/events?c={CHANNEL}"), &[]).await;
    let mut seen = String::new();
    while !seen.contains("event: ping\ndata: {}\n\n") {
        let chunk = stream
            .chunk()
            .await
            .unwrap()
            .expect("the stream stays open");
        seen.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    sse.life.shutdown();
    let rest = stream.text().await.unwrap();
    assert_says_good_bye(&rest);
    sse.stop().await;
}

#[tokio::test]
async fn an_http_1_0_client_gets_plain_bytes_until_the_end() {
    let sse = start(&[]).await;
    let mut socket = TcpStream::connect(&sse.address).await.unwrap();
    let request = format!(
        "GET /events?c={CHANNEL} HTTP/1.0\r\nHost: {}\r\n\r\n",
        sse.address
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let head = read_until(&mut socket, "\r\n\r\nretry: ").await;
    let head = head.to_lowercase();
    assert!(!head.contains("transfer-encoding"), "{head}");
    sse.life.shutdown();
    let mut rest = String::new();
    socket.read_to_string(&mut rest).await.unwrap();
    assert_says_good_bye(&rest);
    sse.stop().await;
}

/// It may send 32 KiB, as much as one more request head, and is a listener all the same.
#[tokio::test]
async fn a_listener_that_sends_on_and_on_is_dropped() {
    let sse = start(&[("HARK_HUB__PING", "1s")]).await;
    let mut socket = TcpStream::connect(&sse.address).await.unwrap();
    let request = format!(
        "GET /events?c={CHANNEL} HTTP/1.1\r\nHost: {}\r\n\r\n",
        sse.address
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    read_until(&mut socket, "retry: ").await;
    socket.write_all(&[b'x'; 32 * 1024]).await.unwrap();
    for _ in 0..2 {
        read_until(&mut socket, "event: ping").await;
    }
    socket.write_all(b"x").await.unwrap();
    // A connection that is closed while something is unread ends with a reset.
    let mut rest = Vec::new();
    let end = socket.read_to_end(&mut rest);
    drop(
        timeout(Duration::from_secs(10), end)
            .await
            .expect("it ends"),
    );
    eventually!(Duration::from_secs(10), {
        let metrics = sse.operations.metrics_text();
        ensure!(metrics.contains("hark_sse_streams 0\n"), "{metrics}");
        Ok(())
    });
    sse.stop().await;
}

#[tokio::test]
async fn heads_that_are_too_long_are_refused_and_32_kib_are_not() {
    let sse = start(&[]).await;
    let long = "a".repeat(30 * 1024);
    let path = format!("/events?c={CHANNEL}");
    assert_eq!(sse.get(&path, &[("x-cookie", &long)]).await.status(), 200);
    let longer = "a".repeat(64 * 1024);
    assert_eq!(sse.get(&path, &[("x-cookie", &longer)]).await.status(), 431);
    sse.stop().await;
}

#[tokio::test]
async fn a_listener_over_http2_that_takes_nothing_is_cut_and_counted() {
    let sse = start(&[("HARK_HUB__WRITE_STALL", "1s")]).await;
    let mut socket = TcpStream::connect(&sse.address).await.unwrap();
    let mut request = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // SETTINGS with INITIAL_WINDOW_SIZE = 0: no room for any body (RFC 9113, section 6.5).
    request.extend([0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0]);
    // HEADERS, the whole request: GET and http from the static table, the others literal
    // (RFC 7541, section 6.2.2).
    let mut head = vec![0x82, 0x86];
    for (name, value) in [
        (4, format!("/events?c={CHANNEL}")),
        (1, sse.address.clone()),
    ] {
        head.extend([name, u8::try_from(value.len()).unwrap()]);
        head.extend(value.as_bytes());
    }
    request.extend([0, 0, u8::try_from(head.len()).unwrap(), 1, 0x5, 0, 0, 0, 1]);
    request.extend(head);
    socket.write_all(&request).await.unwrap();
    // The head arrives, then the end of the connection.
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).await.unwrap();
    let metrics = sse.operations.metrics_text();
    assert!(
        metrics.contains("hark_sse_listeners_cut_total 1\n"),
        "{metrics}"
    );
    sse.stop().await;
}
