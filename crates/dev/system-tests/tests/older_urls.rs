//! The two URLs of the older system, on the same log.

use std::time::Duration;

use system_tests::{Chain, new_channel};
use test_kit::Listener;

const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_clients_and_new_ones_hear_each_other() {
    let chain = Chain::start().await;
    let (channel, user) = (new_channel(), new_channel());
    let mut older = Listener::new(format!("{}/chat/receive/{channel}", chain.sse.url()));
    let mut newer = Listener::new(chain.stream(&[&channel]));
    newer.expect("ready", SOON).await;
    assert!(older.connect().await.unwrap());

    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let origin = format!("http://localhost:{}", chain.sse.address().port());
    let url = format!("{}/chat/publish/{channel}/{user}", chain.chat.url());
    let post = client
        .post(url)
        .header("Origin", &origin)
        .body("hello \u{1f600}\n\ndata: x");
    let answer = post.send().await.unwrap();
    let (status, headers) = (answer.status(), answer.headers().clone());
    assert_eq!(status, 200, "{:?}", answer.text().await);
    assert!(
        headers.contains_key("access-control-allow-origin"),
        "{headers:?}"
    );

    let event = newer.expect("message", SOON).await.json();
    assert_eq!(event["text"], "hello \u{1f600}\n\ndata: x");
    chain.sender().post(&channel, "from a new one").await;
    newer.expect("message", SOON).await;

    let first = older.expect("message", SOON).await.json();
    assert_eq!(first["message"], "hello \u{1f600}\n\ndata: x");
    assert_eq!(first["userId"], user);
    assert!(!first["id"].is_null(), "{first}");
    assert_eq!(first.as_object().unwrap().len(), 3, "{first}");
    let second = older.expect("message", SOON).await.json();
    assert_eq!(second["message"], "from a new one");
    assert_ne!(first["id"], second["id"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_clients_are_served_without_a_broker_too() {
    let mut chain = Chain::start().await;
    let (channel, user) = (new_channel(), new_channel());
    let mut older = Listener::new(format!("{}/chat/receive/{channel}", chain.sse.url()));
    // Only what is posted from here on is promised to it.
    older.expect("ready", SOON).await;
    chain.broker.kill().await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/chat/publish/{channel}/{user}", chain.chat.url());
    for number in 0..3 {
        let post = client.post(&url).body(format!("{number}"));
        let status = post.send().await.unwrap().status();
        // The older system, too, said 202 while its broker was away: 200 until that is noticed.
        assert!(matches!(status.as_u16(), 200 | 202), "{status}");
        let event = older.expect("message", SOON).await.json();
        assert_eq!(event["message"], format!("{number}"));
    }
}
