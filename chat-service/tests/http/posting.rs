use reqwest::StatusCode;
use serde_json::json;

use crate::support::{Answer, Setup, TestBroker, channel};

#[tokio::test]
async fn what_is_answered_is_stored_and_published_byte_for_byte() {
    let broker = TestBroker::start().await;
    let mut received = broker.subscribe().await;
    let setup = Setup::new().broker(broker.address());
    let service = setup.start().await;
    service.until_posts_get(StatusCode::CREATED).await;
    let channel = channel();
    let body = r#"{"text":"hello","data":{"any": 123456789012345678901234567890},"type":"chat.note","from":{"id":"7","name":"guest"}}"#;
    let answer = Answer::of(service.post_json(&channel, body)).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    assert_eq!(answer.header("content-type"), "application/json");
    let event = answer.json();
    assert_eq!(event["channel"], channel);
    assert_eq!(event["seq"], 1);
    assert_eq!(event["type"], "chat.note");
    assert_eq!(event["from"], json!({"id": "7", "name": "guest"}));
    assert!(
        answer
            .body
            .contains(r#""data":{"any":123456789012345678901234567890}"#)
    );
    assert!(!answer.body.contains('\n'));
    assert_eq!(received.events(&channel, 1).await[&1], answer.body);
    let page = Answer::of(service.get(&format!("/channels/{channel}/messages"))).await;
    assert!(page.body.contains(&answer.body), "{page:?}");
    let one = Answer::of(service.get(answer.header("location")))
        .await
        .json();
    assert_eq!(one["messages"][0], event);
    service.stop().await;
}

#[tokio::test]
async fn plain_text_form_and_untyped_bodies_are_the_text() {
    let service = Setup::new().start().await;
    let channel = channel();
    for content_type in [
        None,
        Some("text/plain; charset=utf-8"),
        // What `curl -d hello` sends.
        Some("application/x-www-form-urlencoded"),
    ] {
        let mut request = service.post(&channel).body("a=b&c+%20d");
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        let answer = Answer::of(request).await;
        assert!(answer.status.is_success(), "{answer:?}");
        assert_eq!(answer.json()["text"], "a=b&c+%20d");
        assert_eq!(answer.json()["type"], "message");
    }
    service.stop().await;
}

#[tokio::test]
async fn channel_is_folded_to_lower_case() {
    let service = Setup::new().start().await;
    let channel = channel();
    let event = service.say(&channel.to_uppercase(), "loud").await;
    assert_eq!(event["channel"], channel);
    assert_eq!(service.say(&channel, "quiet").await["seq"], 2);
    service.stop().await;
}

#[tokio::test]
async fn odd_texts_arrive_exactly_as_sent_on_one_line() {
    let service = Setup::new().start().await;
    let channel = channel();
    let texts = [
        "\u{0}",
        "\u{1}\u{8}\u{1f}\u{7f}\u{85}",
        "line\r\nline\rline\n",
        "\n\ndata: forged\n\nid: 7\n\n",
        "\u{1f980}\u{1f469}\u{200d}\u{1f680}",
        "\u{202e}txet\u{200f}",
        "\u{2028}\u{2029}",
        "\u{feff}bom",
        "</script>",
        "\\\"",
    ];
    for (text, seq) in texts.iter().zip(1..) {
        let body = serde_json::to_string(&json!({"text": text, "data": [text]})).unwrap();
        let answer = Answer::of(service.post_json(&channel, body)).await;
        assert!(answer.status.is_success(), "{text:?}: {answer:?}");
        assert!(!answer.body.contains(['\n', '\r']), "{text:?}");
        let event = answer.json();
        assert_eq!(
            (event["seq"].as_u64(), event["text"].as_str()),
            (Some(seq), Some(*text))
        );
        assert_eq!(event["data"][0], *text);
        // As plain text too.
        let answer = Answer::of(
            service
                .post(&crate::support::channel())
                .body((*text).to_owned()),
        )
        .await;
        assert_eq!(answer.json()["text"], *text);
    }
    let numbers = r#"[1e400,-0,123456789012345678901234567890.5,0.10]"#;
    let data = format!(r#"{{"data":{numbers}}}"#);
    let answer = Answer::of(service.post_json(&crate::support::channel(), data)).await;
    assert!(answer.body.contains(numbers), "{answer:?}");
    let page = service.get(&format!("/channels/{channel}/messages"));
    let page = Answer::of(page).await.json();
    for (text, event) in texts.iter().zip(page["messages"].as_array().unwrap()) {
        assert_eq!(event["text"], *text);
    }
    service.stop().await;
}

#[tokio::test]
async fn same_id_or_key_again_is_the_same_message() {
    let setup = Setup::new();
    let service = setup.start().await;
    let channel = channel();
    let id = uuid::Uuid::new_v4();
    let body = format!(r#"{{"id":"{id}","text":"once"}}"#);
    let first = Answer::of(service.post_json(&channel, body.clone())).await;
    assert_eq!(first.status, StatusCode::ACCEPTED);
    assert_eq!(first.json()["id"], id.to_string());
    let again = Answer::of(service.post_json(&channel, body.clone())).await;
    assert_eq!((again.status, &again.body), (StatusCode::OK, &first.body));
    let other = service.post_json(&channel, format!(r#"{{"id":"{id}","text":"twice"}}"#));
    let problem = Answer::of(other).await.problem(422, "key-reused");
    assert_eq!(problem["field"], "id");

    let keyed = |text: &'static str| {
        service
            .post(&channel)
            .header("idempotency-key", "k-1")
            .body(text)
    };
    let first = Answer::of(keyed("keyed")).await;
    let again = Answer::of(keyed("keyed")).await;
    assert_eq!((again.status, &again.body), (StatusCode::OK, &first.body));
    let problem = Answer::of(keyed("something else"))
        .await
        .problem(422, "key-reused");
    assert_eq!(problem["field"], "Idempotency-Key");

    // Each channel has its own ids and keys, and both are remembered across a restart.
    let elsewhere = crate::support::channel();
    assert_eq!(
        Answer::of(service.post_json(&elsewhere, body.clone()))
            .await
            .status,
        StatusCode::ACCEPTED
    );
    service.stop().await;
    let service = setup.start().await;
    assert_eq!(
        Answer::of(service.post_json(&channel, body)).await.status,
        StatusCode::OK
    );
    assert_eq!(service.heads(&[&channel]).await["heads"][0]["head"], 2);
    service.stop().await;
}

#[tokio::test]
async fn repetition_of_an_expired_event_tells_its_place() {
    let setup = Setup::new().set("STORE__MAX_PER_CHANNEL", "1");
    let service = setup.start().await;
    let channel = channel();
    let keyed = || {
        service
            .post(&channel)
            .header("idempotency-key", "k")
            .body("first")
    };
    let first = Answer::of(keyed()).await.json();
    service.say(&channel, "second").await;
    let expired = test_kit::eventually!(crate::support::LONG, {
        let again = Answer::of(keyed()).await;
        test_kit::ensure!(again.status == StatusCode::OK, "{again:?}");
        test_kit::ensure!(again.json()["text"].is_null(), "not expired yet");
        Ok(again.json())
    });
    let expected = json!({
        "channel": channel, "epoch": first["epoch"], "seq": 1, "id": first["id"],
    });
    assert_eq!(expired, expected);
    service.stop().await;
}

#[tokio::test]
async fn posts_at_once_get_dense_numbers() {
    let service = Setup::new().start().await;
    let channel = channel();
    let mut posts = tokio::task::JoinSet::new();
    for n in 0..200 {
        let request = service.post(&channel).body(format!("{n}"));
        posts.spawn(async move { Answer::of(request).await.json()["seq"].as_u64().unwrap() });
    }
    let mut seqs = posts.join_all().await;
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=200).collect::<Vec<_>>());
    service.stop().await;
}
