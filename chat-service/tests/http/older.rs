//! The older system's clients.

use reqwest::StatusCode;

use crate::support::{Answer, Service, Setup, TestBroker, channel};

fn publish(service: &Service, channel: &str, user: &str) -> reqwest::RequestBuilder {
    service
        .client
        .post(format!("{}/chat/publish/{channel}/{user}", service.url))
}

#[tokio::test]
async fn publish_is_a_200_into_the_same_log() {
    let broker = TestBroker::start().await;
    let mut received = broker.subscribe().await;
    let service = Setup::new().broker(broker.address()).start().await;
    service.until_posts_get(StatusCode::CREATED).await;
    let (channel, user) = (channel(), channel());
    let request = publish(&service, &channel, &user.to_uppercase())
        .header("origin", "http://localhost:3000")
        .body("hello");
    let answer = Answer::of(request).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(
        answer.header("access-control-allow-origin"),
        "http://localhost:3000"
    );
    let event = answer.json();
    assert_eq!(event["from"]["id"], user);
    assert_eq!(event["text"], "hello");
    assert_eq!(service.say(&channel, "new").await["seq"], 2);
    let events = received.events(&channel, 2).await;
    assert_eq!(events[&1], answer.body);
    service.stop().await;
}

#[tokio::test]
async fn publish_is_a_202_while_the_broker_is_away() {
    let service = Setup::new().start().await;
    let answer = Answer::of(publish(&service, &channel(), &channel()).body("hello")).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    service.stop().await;
}

#[tokio::test]
async fn body_is_the_text_whatever_type_it_claims() {
    let service = Setup::new().start().await;
    let (channel, user) = (channel(), channel());
    for content_type in ["application/json", "text/html", "application/octet-stream"] {
        let request = publish(&service, &channel, &user).header("content-type", content_type);
        let answer = Answer::of(request.body(r#"{"text":1}"#)).await;
        assert_eq!(answer.json()["text"], r#"{"text":1}"#);
    }
    Answer::of(publish(&service, &channel, &user).body(""))
        .await
        .problem(422, "invalid-field");
    Answer::of(publish(&service, &channel, "guest").body("hi"))
        .await
        .problem(400, "bad-request");
    Answer::of(publish(&service, "lobby", &user).body("hi"))
        .await
        .problem(400, "bad-request");
    service.stop().await;
}
