use broker::BrokerConfig;
use reqwest::StatusCode;
use test_kit::{ensure, eventually};

use crate::support::{Answer, LONG, Setup, TestBroker, channel};

#[tokio::test]
async fn posts_are_taken_without_a_broker_and_published_when_it_comes() {
    let broker = TestBroker::start().await;
    let mut received = broker.subscribe().await;
    broker.proxy.refuse();
    let service = Setup::new().broker(broker.address()).start().await;
    let channel = channel();
    let mut answers = Vec::new();
    for n in 0..50 {
        let answer = Answer::of(service.post(&channel).body(n.to_string())).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED);
        answers.push(answer.body);
    }
    eventually!(LONG, {
        ensure!(service.heads(&[]).await["behind"] == true, "not behind yet");
        Ok(())
    });
    broker.proxy.resume();
    let events = received.events(&channel, 50).await;
    assert_eq!(events.into_values().collect::<Vec<_>>(), answers);
    service.until_posts_get(StatusCode::CREATED).await;
    eventually!(LONG, {
        ensure!(service.heads(&[]).await["behind"] == false, "still behind");
        Ok(())
    });
    service.stop().await;
}

#[tokio::test]
async fn connection_that_is_cut_again_and_again_loses_nothing() {
    let broker = TestBroker::start().await;
    let mut received = broker.subscribe().await;
    let service = Setup::new()
        .broker(broker.address())
        .set("OUTBOX__CONNECTIONS", "2")
        .start()
        .await;
    service.until_posts_get(StatusCode::CREATED).await;
    let channel = channel();
    let mut answers = Vec::new();
    for n in 0..300 {
        if n % 60 == 30 {
            broker.proxy.cut();
        }
        let answer = Answer::of(service.post(&channel).body(n.to_string())).await;
        assert!(answer.status.is_success(), "{answer:?}");
        answers.push(answer.body);
    }
    let events = received.events(&channel, 300).await;
    assert_eq!(events.into_values().collect::<Vec<_>>(), answers);
    service.stop().await;
}

#[tokio::test]
async fn burst_beyond_what_may_be_in_flight_is_published_whole() {
    let broker = TestBroker::start().await;
    let mut received = broker.subscribe().await;
    let service = Setup::new()
        .broker(broker.address())
        .set("OUTBOX__IN_FLIGHT", "2")
        .set("OUTBOX__IN_FLIGHT_BYTES", "1KiB")
        .start()
        .await;
    service.until_posts_get(StatusCode::CREATED).await;
    let channel = channel();
    let mut posts = tokio::task::JoinSet::new();
    for n in 0..500 {
        let request = service
            .post(&channel)
            .body(format!("{n} {}", "x".repeat(n)));
        posts.spawn(async move { assert!(Answer::of(request).await.status.is_success()) });
    }
    posts.join_all().await;
    assert_eq!(received.events(&channel, 500).await.len(), 500);
    service.stop().await;
}

#[tokio::test]
async fn event_that_the_broker_does_not_take_holds_up_nothing() {
    // The broker accepts less than the service assumes, and ends connections that send more.
    let small = BrokerConfig {
        max_packet: 8 * 1024,
        ..BrokerConfig::default()
    };
    let broker = TestBroker::with(small).await;
    let mut received = broker.subscribe().await;
    let service = Setup::new().broker(broker.address()).start().await;
    service.until_posts_get(StatusCode::CREATED).await;
    let (big, other) = (channel(), channel());
    service.say(&big, "before").await;
    service.say(&big, &"x".repeat(20_000)).await;
    service.say(&big, "after").await;
    service.say(&other, "elsewhere").await;
    assert_eq!(received.events(&other, 1).await.len(), 1);
    eventually!(LONG, {
        let set_aside = service.metric("hark_chat_publish_set_aside_total");
        let depth = service.metric("hark_chat_outbox_depth");
        ensure!(
            (set_aside, depth) == (1, 0),
            "{set_aside} set aside, {depth} waiting"
        );
        Ok(())
    });
    // Listeners find it in history, and only because they are made to look.
    assert_eq!(service.heads(&[&big]).await["heads"][0]["head"], 3);
    assert_eq!(service.heads(&[]).await["behind"], true);
    service.stop().await;
}
