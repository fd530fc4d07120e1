//! What strangers send, seen from both ends of the chain.

use std::time::Duration;

use serde_json::{Value, json};
use system_tests::{Chain, new_channel};
use test_kit::{Listener, Recording, mqtt_publish};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_and_data_arrive_exactly_as_they_were_sent() {
    let chain = Chain::start().await;
    let (sender, channel) = (chain.sender(), new_channel());
    let mut listener = Listener::new(chain.stream(&[&channel]));
    listener.expect("ready", SOON).await;
    let texts = [
        "two lines\n\ndata: forged\nid: forged\n\nevent: gap\ndata: {}\n\n",
        "\r\n\r\ndata: forged\r\rid: forged\r",
        "\u{2028}\u{2029}\u{85}",
        "all controls: \u{0}\u{1}\u{2}\u{7}\u{8}\t\u{b}\u{c}\u{1b}\u{1f}\u{7f}",
        "\u{1f600}\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467} e\u{301}",
        "\u{202e}right to left\u{202c} \u{5d0}\u{5d1}\u{200f}",
        "\u{feff}<script>alert(1)</script> \" \\ / </data>",
    ];
    for text in texts {
        let posted = sender.post(&channel, text).await;
        let event = listener.expect("message", SOON).await;
        assert_eq!(event.data, posted.line, "the same bytes");
        assert_eq!(event.json()["text"], text);
    }

    // Numbers that no double holds, in the sender's own tokens.
    let data = r#"{"big":123456789012345678901234567890,"small":-0.10000000000000000000000000000001,"e":1E+2,"dup":1,"dup":2,"nul":"\u0000"}"#;
    let body = format!(
        r#"{{ "data" : {} , "type":"reading.v1" }}"#,
        data.replace(',', " ,\n\t")
    );
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let post = client
        .post(sender.messages_url(&channel))
        .header("Content-Type", "application/json")
        .body(body);
    let answer = post.send().await.unwrap();
    assert_eq!(answer.status(), 201);
    let line = answer.text().await.unwrap();
    let event = listener.expect("reading.v1", SOON).await;
    assert_eq!(event.data, line.trim_end());
    assert!(
        event.data.ends_with(&format!(r#""data":{data}}}"#)),
        "{}",
        event.data
    );

    // History tells the same bytes.
    let page = client
        .get(sender.messages_url(&channel))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(page.contains(&event.data), "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_payloads_that_are_not_ours_are_not_delivered() {
    let chain = Chain::start().await;
    let (sender, channel, other) = (chain.sender(), new_channel(), new_channel());
    let recording = Recording::ready(chain.stream(&[&channel, &other])).await;
    let posted = sender.post(&channel, "ours").await;
    recording.wait_for(SOON, "message", 1).await;
    let topic = format!("chat/{channel}");
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut event = posted.event.clone();
        event["seq"] = json!(2);
        change(&mut event);
        event.to_string()
    };
    let payloads = [
        String::new(),
        "not JSON".to_owned(),
        "{}".to_owned(),
        "\u{0}\u{1}".repeat(5_000),
        // Of another channel.
        changed(&|event| event["channel"] = json!(other)),
        // What would break the framing.
        changed(&|_| ()).replace(',', ",\r\n\r\n"),
        changed(&|event| event["type"] = json!("gap")),
        // The right fields, but no object.
        json!([channel, posted.event["epoch"], 2, "message"]).to_string(),
        // Far ahead of the log, in an epoch to come, and again what was delivered.
        changed(&|event| event["seq"] = json!(1_000)),
        changed(&|event| event["epoch"] = json!("vvvvvvvvv0")),
        changed(&|event| event["epoch"] = json!("0fffffffff")),
        posted.line.clone(),
    ];
    for payload in &payloads {
        mqtt_publish(chain.broker.address(), &topic, payload.as_bytes()).await;
    }
    mqtt_publish(
        chain.broker.address(),
        "chat/not-a-uuid",
        posted.line.as_bytes(),
    )
    .await;
    // Not even text.
    let mut bytes = changed(&|event| event["text"] = json!("?")).into_bytes();
    let place = bytes.iter().position(|byte| *byte == b'?').unwrap();
    bytes[place] = 0xff;
    mqtt_publish(chain.broker.address(), &topic, &bytes).await;

    let lines: Vec<String> = [posted.line.clone()]
        .into_iter()
        .chain(
            sender
                .post_many(&channel, 5)
                .await
                .into_iter()
                .map(|posted| posted.line),
        )
        .collect();
    recording.wait_for(SOON, "message", lines.len()).await;
    // The other channel lives as well, and behind it nothing foreign can be on its way.
    sender.post(&other, "other").await;
    recording.wait_for(SOON, "message", lines.len() + 1).await;
    let events = recording.events();
    let got: Vec<&str> = events
        .iter()
        .filter(|event| event.event != "ready")
        .map(|event| event.data.as_str())
        .collect();
    assert_eq!(got[..lines.len()], lines);
    assert_eq!(got.len(), lines.len() + 1, "{got:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_say_nothing_are_closed_and_cost_the_others_nothing() {
    let chain = Chain::start().await;
    let (sender, channel) = (chain.sender(), new_channel());
    let recording = Recording::ready(chain.stream(&[&channel])).await;
    let partial_body = format!(
        "POST /channels/{channel}/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\nx"
    );
    let mut idle = tokio::task::JoinSet::new();
    for (address, said) in [
        (chain.chat.address(), ""),
        (chain.chat.address(), "P"),
        (
            chain.chat.address(),
            "GET /channels HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ",
        ),
        (chain.chat.address(), partial_body.as_str()),
        (chain.sse.address(), ""),
        (chain.sse.address(), "GET /events?c="),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        let said = said.to_owned();
        idle.spawn(async move {
            let mut answer = Vec::new();
            // It may be told why or cut off, but it must end.
            let ended = timeout(Duration::from_secs(45), stream.read_to_end(&mut answer)).await;
            assert!(
                ended.is_ok(),
                "after {said:?} it is open, with {:?}",
                String::from_utf8_lossy(&answer)
            );
        });
    }
    while let Some(ended) = idle.join_next().await {
        ended.unwrap();
        let before = recording.count("message");
        sender.post(&channel, "meanwhile").await;
        recording
            .wait_for(Duration::from_secs(5), "message", before + 1)
            .await;
    }
    assert_eq!(recording.connects(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_say_what_to_change() {
    let chain = Chain::start().await;
    let (channel, long) = (new_channel(), "x".repeat(70_000));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let (chat, sse) = (chain.chat.url(), chain.sse.url());
    let messages = chain.sender().messages_url(&channel);
    let json = |body: &str| {
        client
            .post(&messages)
            .header("Content-Type", "application/json")
            .body(body.to_owned())
    };
    let many = vec![format!("c={}", uuid::Uuid::nil()); 1_000].join("&");
    let too_many = (0..200)
        .map(|_| new_channel())
        .collect::<Vec<_>>()
        .join("&c=");
    // Small, and over the limit once each control character is written as six.
    let controls = "\\u0001".repeat(10_900);
    let rows = [
        (
            400,
            client
                .post(format!("{chat}/channels/nobody/messages"))
                .body("x"),
            "",
        ),
        (400, client.get(format!("{sse}/events?c=nobody")), ""),
        (400, client.get(format!("{sse}/events")), ""),
        (400, client.get(format!("{sse}/events?c={too_many}")), ""),
        (
            400,
            client.get(format!("{sse}/events?c={channel}&since=nonsense")),
            "since",
        ),
        (422, json(r#"{"text":"x","nonsense":1}"#), "nonsense"),
        (422, json(r#"{"text":1}"#), "text"),
        (422, json("{}"), "text"),
        (422, json(r#"{"text":"x","type":"ready"}"#), "type"),
        (422, json(r#"{"text":"x","type":"hark.x"}"#), "type"),
        (422, json(r#"{"text":"\ud800"}"#), "text"),
        (400, json(r#"{"text":"#), ""),
        (413, json(&format!(r#"{{"text":"{long}"}}"#)), ""),
        (413, json(&format!(r#"{{"text":"{controls}"}}"#)), ""),
        (
            415,
            client
                .post(&messages)
                .header("Content-Type", "image/png")
                .body("x"),
            "",
        ),
        (404, client.get(format!("{chat}/nonsense")), ""),
        (404, client.get(format!("{sse}/nonsense")), ""),
        (405, client.delete(&messages), ""),
        (405, client.post(format!("{sse}/events?c={channel}")), ""),
        (
            403,
            client
                .post(&messages)
                .header("Origin", "https://evil.example")
                .body("x"),
            "",
        ),
        (
            403,
            client
                .post(&messages)
                .header("Host", "evil.example")
                .body("x"),
            "",
        ),
        (
            403,
            client
                .get(format!("{sse}/events?c={channel}"))
                .header("Host", "evil.example"),
            "access.allowed_hosts",
        ),
        (400, client.get(&messages).header("Host", "[::1"), "Host"),
    ];
    let foreign = [
        "http://[::1].evil.example",
        "http://localhost:80@evil.example",
        "http://localhost:evil.example",
    ];
    let pages = foreign.map(|page| (403, client.post(&messages).header("Origin", page), page));
    let rows = rows.into_iter().chain(pages);
    for (expected, request, named) in rows {
        let request = request.build().unwrap();
        let what = format!("{} {:.120}", request.method(), request.url());
        let answer = client.execute(request).await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let body = answer.text().await.unwrap();
        assert_eq!(status, expected, "{what}: {body}");
        assert_eq!(
            headers["content-type"], "application/problem+json",
            "{what}"
        );
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert!(body.contains(named), "{what} names {named}: {body}");
        assert!(
            problem["type"].is_string() && problem["title"].is_string(),
            "{what}: {body}"
        );
        assert_eq!(problem["status"], expected, "{what}");
    }
    // Before a head could be parsed a bare status is all there is.
    let oversize = client
        .get(format!("{sse}/events?{many}"))
        .send()
        .await
        .unwrap()
        .status()
        .as_u16();
    assert!(matches!(oversize, 400 | 414 | 431), "{oversize}");
    let bytes = client
        .post(&messages)
        .header("Content-Type", "application/json")
        .body(vec![b'"', 0xff, b'"']);
    assert_eq!(bytes.send().await.unwrap().status(), 400);
    // Nothing of this was stored.
    assert_eq!(chain.sender().page(&channel, 0).await["head"], 0);
}

/// RFC 9112, section 3.2; with a raw socket, because clients name the host by themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_without_a_host_or_with_two_is_a_400() {
    let chain = Chain::start().await;
    let ops = chain.chat.process().socket("ops");
    for (address, path) in [
        (chain.chat.address(), "/channels"),
        (chain.sse.address(), "/events"),
        (ops, "/metrics"),
    ] {
        for hosts in ["", "Host: localhost\r\nHost: localhost\r\n"] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            let read = timeout(SOON, stream.read_to_string(&mut answer)).await;
            read.unwrap().unwrap();
            assert!(
                answer.starts_with("HTTP/1.1 400"),
                "{path} {hosts:?}: {answer}"
            );
            assert!(answer.contains("bad-host"), "{path} {hosts:?}: {answer}");
        }
    }
}
