//! Posts: how many there are, their bytes, and what the store remembers of them.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};
use system_tests::{Chain, HonestPair, Sender, new_channel};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::behind_a_proxy;

/// How long the stranger goes on once he has met his limit.
const GOES_ON: Duration = Duration::from_secs(2);

const STRANGER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 66));
const HONEST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 7));

async fn honest(chain: &Chain) -> HonestPair {
    HonestPair::of(
        Sender::forwarded(chain.chat.url(), HONEST),
        &chain.sse.url(),
    )
    .await
}

/// Posts as fast as he is answered, until he has been refused for a while; what was said at last.
async fn flood(chain: &Chain, body: impl Fn() -> Value) -> String {
    let stranger = Sender::forwarded(chain.chat.url(), STRANGER);
    let mut refused: Option<(Instant, String)> = None;
    for number in 0..20_000 {
        // Many channels, so that it is the address that has too much.
        let channel = if number % 10 == 0 {
            new_channel()
        } else {
            Uuid::from_u128(number % 100).to_string()
        };
        let answer = stranger.try_post(&channel, &body()).await.unwrap();
        if answer.status() == 429 {
            let since = refused.map_or_else(Instant::now, |(since, _)| since);
            refused = Some((since, answer.text().await.unwrap()));
            // Not faster than one that waits for his turn now and then.
            sleep(Duration::from_millis(1)).await;
        } else {
            let status = answer.status();
            assert!(status.is_success(), "{status} {:?}", answer.text().await);
        }
        if let Some((since, why)) = &refused
            && since.elapsed() > GOES_ON
        {
            return why.clone();
        }
    }
    panic!("{STRANGER} is never refused")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn senders_keys_of_a_stranger_leave_those_of_others() {
    let chain = behind_a_proxy(&[
        ("HARK_STORE__KEYS_MAX_COUNT", "2000"),
        ("HARK_LIMITS__POSTS_PER_SECOND", "0"),
    ])
    .await;
    let mut pair = honest(&chain).await;
    pair.quiet().await;
    let with_key = || json!({ "id": Uuid::now_v7(), "text": "mine" });
    let why = pair.beside(flood(&chain, with_key)).await;
    assert!(why.contains("keys-full"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_of_a_stranger_leave_others_their_history() {
    let chain = behind_a_proxy(&[
        ("HARK_STORE__MAX_BYTES", "16MiB"),
        ("HARK_LIMITS__BYTES_BURST", "4MiB"),
    ])
    .await;
    let mut pair = honest(&chain).await;
    pair.quiet().await;
    let large = "x".repeat(60 * 1024);
    let why = pair
        .beside(flood(&chain, || json!({ "text": large })))
        .await;
    assert!(why.contains("rate-limit"), "{why}");
    let first = pair.first_kept().await;
    assert_eq!(first, 1, "nothing of the honest one's history has gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posts_of_a_stranger_are_not_felt() {
    let chain = behind_a_proxy(&[]).await;
    let mut pair = honest(&chain).await;
    pair.quiet().await;
    let why = pair
        .beside(flood(&chain, || json!({ "text": "again" })))
        .await;
    assert!(why.contains("rate-limit"), "{why}");
}
