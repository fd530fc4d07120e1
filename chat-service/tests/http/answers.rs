//! Answers that their clients do not read.

use test_kit::{Http2, Unread, ensure, eventually};

use crate::support::{Answer, LONG, Service, Setup, channel, of_client};

/// A service that may hold four pages of 1 MiB, of which one address may hold two.
async fn service() -> Service {
    Setup::behind_a_proxy()
        .set("LIMITS__ANSWERS", "4608KiB")
        .set("LIMITS__NODES", "192.0.2.0/28")
        .start()
        .await
}

/// The path of a page of nearly 1 MiB.
async fn large_page(service: &Service) -> String {
    let channel = channel();
    let text = "x".repeat(60_000);
    for _ in 0..17 {
        service.say(&channel, &text).await;
    }
    format!("/channels/{channel}/messages")
}

async fn read(service: &Service, path: &str, client: &str) -> Answer {
    Answer::of(of_client(service.get(path), client)).await
}

/// How many of them are not refusals.
fn pages(unread: &[Unread]) -> usize {
    let unread = unread.iter();
    unread.filter(|answer| answer.status() == 200).count()
}

#[tokio::test]
async fn unread_answers_of_one_address_leave_room_for_others() {
    let service = service().await;
    let page = large_page(&service).await;
    let mut greedy = Http2::connect(service.address).await;
    let unread = greedy.ask(&page, "198.51.100.1", 20).await;
    assert_eq!(pages(&unread), 2);
    let refused = read(&service, &page, "198.51.100.1").await;
    assert_eq!(refused.problem(429, "too-many-answers")["of"], "address");
    assert_eq!(refused.retry_after(), 1);
    assert_eq!(read(&service, &page, "198.51.100.2").await.status, 200);
    // An unread answer gives its share back when its connection ends.
    drop((unread, greedy));
    eventually!(LONG, {
        let status = read(&service, &page, "198.51.100.1").await.status;
        ensure!(status == 200, "{status}");
        Ok(())
    });
    // So does one that was read, again and again.
    for _ in 0..10 {
        assert_eq!(read(&service, &page, "198.51.100.1").await.status, 200);
    }
    service.stop().await;
}

/// HTTP/2 takes the answer's body long before the client's window has room for it.
#[tokio::test]
async fn small_answers_count_until_they_are_written() {
    let service = service().await;
    let channel = channel();
    service.say(&channel, &"x".repeat(60_000)).await;
    let page = format!("/channels/{channel}/messages");
    let mut greedy = Http2::connect(service.address).await;
    let unread = greedy.ask(&page, "198.51.100.1", 100).await;
    assert!((35..=40).contains(&pages(&unread)));
    drop((unread, greedy));
    service.stop().await;
}

#[tokio::test]
async fn nodes_may_leave_as_much_unread_as_they_like() {
    let service = service().await;
    let page = large_page(&service).await;
    let mut node = Http2::connect(service.address).await;
    let unread = node.ask(&page, "192.0.2.5", 20).await;
    assert_eq!(pages(&unread), 20);
    drop((unread, node));
    service.stop().await;
}

/// The answer to a post is as large as its body.
#[tokio::test]
async fn unread_answers_to_posts_count_as_their_bodies() {
    let service = Setup::behind_a_proxy()
        .set("LIMITS__MESSAGE", "32KiB")
        .set("LIMITS__BODIES", "256KiB")
        .start()
        .await;
    let path = format!("/channels/{}/messages", channel());
    let mut greedy = Http2::connect(service.address).await;
    let mut unread = Vec::new();
    // One after another, so that none waits for the store.
    for _ in 0..12 {
        let text = "x".repeat(30_000);
        unread.push(greedy.post(&path, "198.51.100.1", text).await);
    }
    let refused = unread.iter().filter(|answer| answer.status() == 429);
    // Two have been sent to the client, and four more fit into its share.
    assert!((5..=6).contains(&refused.count()));
    let post = service.post_to(&path).body("y".repeat(30_000));
    let other = Answer::of(of_client(post, "198.51.100.2")).await;
    assert!(other.status.is_success());
    drop((unread, greedy));
    service.stop().await;
}
