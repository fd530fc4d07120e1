use http_server::operations::Health;
use reqwest::StatusCode;
use test_kit::{ensure, eventually};

use crate::support::{Answer, LONG, Setup, TestBroker, channel};

#[tokio::test]
async fn readiness_names_store_damage_and_broker() {
    let broker = TestBroker::start().await;
    broker.proxy.refuse();
    let service = Setup::new().broker(broker.address()).start().await;
    let readiness = service.operations.readiness().await;
    let names: Vec<&str> = readiness.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["store", "damage", "broker"]);
    assert_eq!(readiness[0].1, Health::Ok);
    assert_eq!(readiness[1].1, Health::Ok);
    assert!(
        matches!(readiness[2].1, Health::Degraded(_)),
        "{readiness:?}"
    );
    broker.proxy.resume();
    eventually!(LONG, {
        let readiness = service.operations.readiness().await;
        ensure!(readiness[2].1 == Health::Ok, "{readiness:?}");
        Ok(())
    });
    service.stop().await;
}

#[tokio::test]
async fn metrics_count_posts_and_show_the_outbox() {
    let broker = TestBroker::start().await;
    let service = Setup::new().broker(broker.address()).start().await;
    service.until_posts_get(StatusCode::CREATED).await;
    let channel = channel();
    service.say(&channel, "hello").await;
    Answer::of(service.post_json(&channel, "{"))
        .await
        .problem(400, "unreadable-body");
    eventually!(LONG, {
        let text = service.operations.metrics_text();
        for line in [
            "hark_chat_http_requests_total{route=\"/channels/{channel}/messages\",method=\"POST\",status=\"400\"} 1",
            "hark_chat_outbox_depth 0",
            "hark_chat_outbox_in_flight 0",
            "hark_chat_outbox_following 1",
            "hark_chat_broker_up 1",
        ] {
            ensure!(
                text.lines().any(|found| found == line),
                "{line} is not in {text}"
            );
        }
        Ok(())
    });
    service.stop().await;
}

#[tokio::test]
async fn preflight_lets_pages_of_this_machine_post() {
    let service = Setup::new().start().await;
    let request = service
        .client
        .request(reqwest::Method::OPTIONS, service.messages(&channel()))
        .header("origin", "http://localhost:8000")
        .header("access-control-request-method", "POST")
        .header(
            "access-control-request-headers",
            "content-type,idempotency-key",
        );
    let answer = Answer::of(request).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert_eq!(answer.header("access-control-allow-methods"), "GET, POST");
    assert!(
        answer
            .header("access-control-allow-headers")
            .contains("idempotency-key")
    );
    service.stop().await;
}
