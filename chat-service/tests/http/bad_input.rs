//! Each kind of bad input gets a 4xx that says what to change, and nothing is stored.

use std::convert::Infallible;

use futures_util::stream;
use reqwest::{Body, StatusCode};
use serde_json::json;

use crate::support::{Answer, Service, Setup, channel};

async fn nothing_was_stored(service: &Service, channel: &str) {
    assert_eq!(service.heads(&[channel]).await["heads"][0]["head"], 0);
}

#[tokio::test]
async fn what_is_no_uuid_is_a_400() {
    let service = Setup::new().start().await;
    let id = channel();
    let long = "x".repeat(3000);
    for bad in [
        "x",
        "c3743620",
        "%00",
        "..%2f..",
        "%ff%fe",
        long.as_str(),
        "c3743620-4b1b-4c2b-9d80-05b0e5a2c1fg",
        "{c3743620-4b1b-4c2b-9d80-05b0e5a2c1f0}",
        "c37436204b1b4c2b9d8005b0e5a2c1f0",
        "urn:uuid:c3743620-4b1b-4c2b-9d80-05b0e5a2c1f0",
    ] {
        for request in [
            service.post(bad).body("hello"),
            service.get(&format!("/channels/{bad}")),
            service.get(&format!("/channels/{bad}/messages")),
            service
                .post_to(&format!("/chat/publish/{bad}/{id}"))
                .body("hello"),
            service
                .post_to(&format!("/chat/publish/{id}/{bad}"))
                .body("hello"),
        ] {
            let answer = Answer::of(request).await;
            let problem = answer.problem(400, "bad-request");
            assert!(problem["parameter"].is_string());
            assert!(answer.body.len() < 1000, "{}", answer.body.len());
        }
    }
    let request = service.ask_heads(r#"{"channels":["x"]}"#);
    Answer::of(request).await.problem(400, "bad-request");
    service.stop().await;
}

#[tokio::test]
async fn bad_fields_are_a_422_that_names_the_field() {
    let service = Setup::new().start().await;
    let channel = channel();
    let long_type = format!(r#"{{"text":"a","type":"{}"}}"#, "x".repeat(65));
    let long_name = format!(r#"{{"text":"a","from":{{"name":"{}"}}}}"#, "x".repeat(129));
    for (body, field) in [
        (r#"{"text":"a","colour":"red"}"#, "colour"),
        (r#"{"text":"a","verified":true}"#, "verified"),
        (r#"{"text":"a","seq":7}"#, "seq"),
        (r#"{"text":7}"#, "text"),
        (r#"{"text":null}"#, "text"),
        (r#"{"text":["a"]}"#, "text"),
        (r#"{"text":"a","text":"b"}"#, "text"),
        (r#"{}"#, "text"),
        (r#"{"type":"message"}"#, "text"),
        (r#"{"text":"\ud800"}"#, "text"),
        (r#"{"text":"\udc00\ud800"}"#, "text"),
        (r#"{"text":"a","type":"ready"}"#, "type"),
        (r#"{"text":"a","type":"gap"}"#, "type"),
        (r#"{"text":"a","type":"ping"}"#, "type"),
        (r#"{"text":"a","type":"open"}"#, "type"),
        (r#"{"text":"a","type":"error"}"#, "type"),
        (r#"{"text":"a","type":"hark.edit"}"#, "type"),
        (r#"{"text":"a","type":"a\nid: 7"}"#, "type"),
        (r#"{"text":"a","type":""}"#, "type"),
        (r#"{"text":"a","type":null}"#, "type"),
        (&long_type, "type"),
        (r#"{"text":"a","id":"7"}"#, "id"),
        (r#"{"text":"a","id":7}"#, "id"),
        (r#"{"text":"a","from":"me"}"#, "from"),
        (r#"{"text":"a","from":{"id":"7","verified":true}}"#, "from"),
        (&long_name, "from.name"),
        (r#"["text"]"#, "body"),
        (r#""text""#, "body"),
        ("null", "body"),
        ("7", "body"),
    ] {
        let answer = Answer::of(service.post_json(&channel, body.to_owned())).await;
        let problem = answer.problem(422, "invalid-field");
        assert_eq!(problem["field"], field, "{body}: {problem}");
    }
    let empty = Answer::of(
        service
            .post(&channel)
            .header("content-type", "text/plain")
            .body(""),
    )
    .await;
    empty.problem(422, "invalid-field");
    Answer::of(service.post(&channel))
        .await
        .problem(422, "invalid-field");
    nothing_was_stored(&service, &channel).await;
    service.stop().await;
}

#[tokio::test]
async fn broken_json_and_utf8_are_a_400() {
    let service = Setup::new().start().await;
    let channel = channel();
    let deep = [b"{\"data\":".as_slice(), &[b'['; 30_000]].concat();
    for body in [
        &b"{"[..],
        b"",
        b"hello",
        b"{\"text\":\"a\"",
        b"{\"text\":\"a\"}}",
        b"{\"text\":\"\xff\"}",
        b"{'text':'a'}",
        b"{\"text\":\"a\nb\"}",
        b"\xef\xbb\xbf{}",
        &deep,
    ] {
        let answer = Answer::of(service.post_json(&channel, body.to_vec())).await;
        answer.problem(400, "unreadable-body");
    }
    for body in [&b"\xff"[..], b"ab\xc3", b"\xed\xa0\x80"] {
        let answer = Answer::of(service.post(&channel).body(body.to_vec())).await;
        answer.problem(400, "unreadable-body");
    }
    nothing_was_stored(&service, &channel).await;
    service.stop().await;
}

#[tokio::test]
async fn too_large_is_a_413() {
    let service = Setup::new().start().await;
    let channel = channel();
    let limit = 64 * 1024;
    let big = "x".repeat(limit + 1);
    Answer::of(service.post(&channel).body(big.clone()))
        .await
        .problem(413, "too-large");
    Answer::of(service.post_json(&channel, format!(r#"{{"text":"{big}"}}"#)))
        .await
        .problem(413, "too-large");
    // Far larger: refused because of its announced length, and the answer still arrives.
    Answer::of(service.post(&channel).body("x".repeat(900_000)))
        .await
        .problem(413, "too-large");
    // Without Content-Length.
    let pieces = stream::iter((0..70).map(|_| Ok::<_, Infallible>("x".repeat(1024))));
    let chunked = service.post(&channel).body(Body::wrap_stream(pieces));
    Answer::of(chunked).await.problem(413, "too-large");
    // Small enough as it is sent, but not once it is encoded: \u0001 takes six bytes.
    let problem = Answer::of(service.post(&channel).body("\u{1}".repeat(60_000)))
        .await
        .problem(413, "too-large");
    assert_eq!(problem["limit"], limit);
    // At the limit as it is sent, but above it with what an event adds.
    Answer::of(service.post(&channel).body("x".repeat(limit)))
        .await
        .problem(413, "too-large");
    nothing_was_stored(&service, &channel).await;
    service.say(&channel, &"x".repeat(limit - 300)).await;
    let query = format!(r#"{{"channels":[{}]}}"#, " ".repeat(70_000));
    Answer::of(service.ask_heads(query))
        .await
        .problem(413, "too-large");
    service.stop().await;
}

#[tokio::test]
async fn other_content_types_are_a_415() {
    let service = Setup::new().start().await;
    let channel = channel();
    for content_type in [
        "text/html",
        "application/octet-stream",
        "multipart/form-data; boundary=x",
        "application/json; charset=utf-16",
        "text/plain; charset=iso-8859-1",
    ] {
        let request = service
            .post(&channel)
            .header("content-type", content_type)
            .body("{}");
        Answer::of(request)
            .await
            .problem(415, "unsupported-media-type");
    }
    let request = service
        .post(&channel)
        .header("content-encoding", "gzip")
        .body("{}");
    Answer::of(request)
        .await
        .problem(415, "unsupported-media-type");
    let request = service.post_to("/heads").body("{}");
    Answer::of(request)
        .await
        .problem(415, "unsupported-media-type");
    nothing_was_stored(&service, &channel).await;
    service.stop().await;
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let service = Setup::new().start().await;
    let id = channel();
    for path in [
        "/",
        "/channels",
        "/nowhere",
        &format!("/channels/{id}//"),
        &format!("/channels/{id}/messages/1"),
    ] {
        Answer::of(service.get(path))
            .await
            .problem(404, "not-found");
    }
    for (method, path, allow) in [
        (
            "DELETE",
            format!("/channels/{id}/messages"),
            "GET,HEAD,POST",
        ),
        ("PUT", format!("/channels/{id}"), "GET,HEAD"),
        ("GET", "/heads".to_owned(), "POST"),
        ("GET", format!("/chat/publish/{id}/{id}"), "POST"),
        ("BREW", format!("/channels/{id}"), "GET,HEAD"),
    ] {
        let method = method.parse().unwrap();
        let request = service
            .client
            .request(method, format!("{}{path}", service.url));
        let answer = Answer::of(request).await;
        answer.problem(405, "method-not-allowed");
        assert_eq!(answer.header("allow"), allow);
    }
    service.stop().await;
}

#[tokio::test]
async fn bad_queries_and_keys_are_a_400_that_names_them() {
    let service = Setup::new().start().await;
    let id = channel();
    for (query, parameter) in [
        ("after=x", "after"),
        ("after=-1", "after"),
        ("before=1.5", "before"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("after=1&before=2", "before"),
        ("since=7", "since"),
        ("limit=2&limit=3", "limit"),
    ] {
        let answer = Answer::of(service.get(&format!("/channels/{id}/messages?{query}"))).await;
        assert_eq!(
            answer.problem(400, "bad-request")["parameter"],
            parameter,
            "{query}"
        );
    }
    for key in ["", "with blank", &"k".repeat(129), "k\u{e9}"] {
        let request = service
            .post(&id)
            .header("idempotency-key", key.as_bytes())
            .body("hello");
        assert_eq!(
            Answer::of(request).await.problem(400, "bad-request")["parameter"],
            "Idempotency-Key"
        );
    }
    let twice = service
        .post(&id)
        .header("idempotency-key", "a")
        .header("idempotency-key", "b")
        .body("hello");
    Answer::of(twice).await.problem(400, "bad-request");
    nothing_was_stored(&service, &id).await;
    let longest = service
        .post(&id)
        .header("idempotency-key", "k".repeat(128))
        .body("hello");
    assert!(Answer::of(longest).await.status.is_success());
    service.stop().await;
}

#[tokio::test]
async fn bad_heads_queries_say_what_to_change() {
    let service = Setup::new().start().await;
    let heads = |body: String| Answer::of(service.ask_heads(body));
    for body in [
        "{}",
        r#"{"channels":7}"#,
        r#"{"channels":[7]}"#,
        r#"{"channels":[],"more":1}"#,
        "[]",
    ] {
        heads(body.to_owned()).await.problem(422, "invalid-field");
    }
    heads("{".to_owned()).await.problem(400, "unreadable-body");
    let many = |count| serde_json::to_string(&json!({"channels": vec![channel(); count]})).unwrap();
    heads(many(1001)).await.problem(422, "invalid-field");
    let answer = heads(many(1000)).await;
    assert_eq!(answer.json()["heads"].as_array().unwrap().len(), 1000);
    service.stop().await;
}

#[tokio::test]
async fn overlong_targets_and_heads_are_414_and_431() {
    let service = Setup::new().start().await;
    let id = channel();
    let long = service.get(&format!(
        "/channels/{id}/messages?after={}",
        "1".repeat(17_000)
    ));
    Answer::of(long).await.problem(414, "uri-too-long");
    // Before the head could be read, HTTP allows only a bare status.
    let huge = service.get("/").header("x-long", "x".repeat(100_000));
    assert_eq!(
        Answer::of(huge).await.status,
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
    );
    service.stop().await;
}

#[tokio::test]
async fn foreign_pages_and_hosts_are_a_403() {
    let service = Setup::new().start().await;
    let channel = channel();
    let foreign = service
        .post(&channel)
        .header("origin", "https://evil.example")
        .body("hello");
    let answer = Answer::of(foreign).await;
    let detail = answer.problem(403, "foreign-origin")["detail"].to_string();
    assert!(detail.contains("access.allowed_origins"), "{detail}");
    assert!(
        detail.contains("--allow-origin https://evil.example"),
        "{detail}"
    );
    assert_eq!(answer.header("access-control-allow-origin"), "");
    let rebound = service
        .post(&channel)
        .header("host", "evil.example")
        .body("hello");
    Answer::of(rebound).await.problem(403, "foreign-host");
    nothing_was_stored(&service, &channel).await;

    let own = service
        .post(&channel)
        .header("origin", "http://localhost:8000")
        .body("hello");
    let answer = Answer::of(own).await;
    assert!(answer.status.is_success());
    assert_eq!(
        answer.header("access-control-allow-origin"),
        "http://localhost:8000"
    );
    let broken = service
        .post_json(&channel, "{")
        .header("origin", "http://localhost:8000");
    let answer = Answer::of(broken).await;
    assert_eq!(
        answer.header("access-control-allow-origin"),
        "http://localhost:8000"
    );
    service.stop().await;
}
