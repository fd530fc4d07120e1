//! Room for messages, and the history that others have in it.

use std::time::Duration;

use system_tests::{Chain, HonestPair, Sender, new_channel};
use test_kit::{ensure, eventually};

const SOON: Duration = Duration::from_secs(60);

/// Three times what all may have.
const LARGE: usize = 400;
const WORDS: usize = 60_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_channel_cannot_roll_the_history_of_others() {
    let Chain { chat, sse, .. } =
        &Chain::start_with_chat(|chat| chat.env("HARK_STORE__MAX_BYTES", "8MiB")).await;
    let (honest, kept) = (Sender::to(chat.url()), new_channel());
    honest.post_many(&kept, 20).await;
    let mut pair = HonestPair::start(&chat.url(), &sse.url()).await;
    pair.quiet().await;
    pair.beside(async {
        let (stranger, channel) = (Sender::to(chat.url()), new_channel());
        let words = "x".repeat(WORDS);
        for _ in 0..LARGE {
            stranger.post(&channel, &words).await;
        }
        // Channels that nobody needs take nothing of anybody's room.
        for _ in 0..200 {
            stranger.post(&new_channel(), "x").await;
        }
    })
    .await;
    // Whatever was too much is gone by now.
    eventually!(SOON, {
        let expired = chat.metric("hark_chat_store_expired_total").await;
        ensure!(expired > LARGE as u64 / 2, "{expired} have expired");
        Ok(())
    });
    let page = honest.page(&kept, 0).await;
    assert_eq!((&page["first"], &page["head"]), (&1.into(), &20.into()));
    let early = chat.metric("hark_chat_store_expired_early_total").await;
    assert!(early > 0, "the operator is told");
}
