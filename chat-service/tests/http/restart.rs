use reqwest::StatusCode;
use test_kit::{ensure, eventually};

use crate::support::{Answer, LONG, Setup, TestBroker, channel};

#[tokio::test]
async fn what_was_not_published_before_a_restart_is_published_after_it() {
    let broker = TestBroker::start().await;
    let mut received = broker.subscribe().await;
    let setup = Setup::new().broker(broker.address());
    let service = setup.start().await;
    service.until_posts_get(StatusCode::CREATED).await;
    let channel = channel();
    let mut answers = Vec::new();
    for n in 0..20 {
        answers.push(
            Answer::of(service.post(&channel).body(n.to_string()))
                .await
                .body,
        );
    }
    broker.proxy.refuse();
    service.until_posts_get(StatusCode::ACCEPTED).await;
    for n in 20..40 {
        answers.push(
            Answer::of(service.post(&channel).body(n.to_string()))
                .await
                .body,
        );
    }
    service.stop().await;

    broker.proxy.resume();
    let service = setup.start().await;
    let events = received.events(&channel, 40).await;
    assert_eq!(events.into_values().collect::<Vec<_>>(), answers);
    service.stop().await;
}

#[tokio::test]
async fn what_was_published_is_not_published_again_after_a_clean_stop() {
    let broker = TestBroker::start().await;
    let setup = Setup::new().broker(broker.address());
    let service = setup.start().await;
    let before = channel();
    for n in 0..30 {
        service.say(&before, &n.to_string()).await;
    }
    // Stopping waits until everything is published, and saves the watermark.
    eventually!(LONG, {
        let ready = service.operations.readiness().await;
        let up = ready
            .iter()
            .all(|(_, health)| *health == http_server::operations::Health::Ok);
        ensure!(up, "{ready:?}");
        Ok(())
    });
    service.stop().await;

    let mut received = broker.subscribe().await;
    let service = setup.start().await;
    service.until_posts_get(StatusCode::CREATED).await;
    let after = channel();
    service.say(&after, "new").await;
    assert!(received.events(&after, 1).await[&1].contains("new"));
    let confirmed = service.metric("hark_chat_publish_confirmed_total");
    assert!(
        confirmed < 30,
        "{confirmed} events were published after the restart"
    );
    service.stop().await;
}

#[tokio::test]
async fn stopping_under_load_answers_what_it_took_and_keeps_what_it_answered() {
    let broker = TestBroker::start().await;
    let mut received = broker.subscribe().await;
    let setup = Setup::new().broker(broker.address());
    let service = setup.start().await;
    service.until_posts_get(StatusCode::CREATED).await;
    let channel = channel();
    let mut posts = tokio::task::JoinSet::new();
    for sender in 0..8 {
        let (client, url) = (reqwest::Client::new(), service.messages(&channel));
        posts.spawn(async move {
            let mut stored = Vec::new();
            for n in 0.. {
                match client.post(&url).body(format!("{sender} {n}")).send().await {
                    Ok(response) if response.status().is_success() => {
                        stored.push(response.text().await.expect("an answer that began ends"));
                    }
                    // The service is gone, or nearly.
                    Ok(response) => panic!("{}", response.status()),
                    Err(_) => break,
                }
            }
            stored
        });
    }
    eventually!(LONG, {
        let heads = service.heads(&[&channel]).await;
        ensure!(heads["heads"][0]["head"].as_u64() > Some(200), "{heads}");
        Ok(())
    });
    service.stop().await;
    let mut stored: Vec<_> = posts.join_all().await.concat();
    let service = setup.start().await;
    let head = service.heads(&[&channel]).await["heads"][0]["head"]
        .as_u64()
        .unwrap();
    let mut events: Vec<_> = received
        .events(&channel, usize::try_from(head).unwrap())
        .await
        .into_values()
        .collect();
    events.sort_unstable();
    stored.sort_unstable();
    for answered in &stored {
        assert!(events.binary_search(answered).is_ok(), "{answered}");
    }
    service.stop().await;
}

#[tokio::test]
async fn second_service_on_the_same_folder_is_told_so() {
    let setup = Setup::new();
    let service = setup.start().await;
    let second = chat_service::Server::bind(
        setup.config(),
        clock::SystemClock::shared(),
        http_server::operations::Operations::new(),
    );
    let text = second.await.err().unwrap().to_string();
    assert!(text.contains("in use by another process"), "{text}");
    service.stop().await;
}
