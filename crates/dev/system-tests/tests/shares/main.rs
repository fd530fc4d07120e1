//! What a stranger can use up, and that an honest pair beside him does not notice: one test or more
//! for each row of "What a stranger can use up" in docs/operations.md, one file a theme.

mod answers;
mod bodies;
mod broker;
mod channels;
mod connections;
mod frames;
mod history;
mod posts;

use system_tests::{Chain, Node};

/// All three programs, with these settings of chat-service. Senders on loopback, which is exempt, may
/// name others in X-Forwarded-For.
async fn behind_a_proxy(settings: &[(&str, &str)]) -> Chain {
    Chain::start_with_chat(|chat| {
        let chat = chat.env("HARK_LIMITS__TRUSTED_PROXIES", "127.0.0.1");
        let set = |chat: Node, (key, value): &(&str, &str)| chat.env(key, value);
        settings.iter().fold(chat, set)
    })
    .await
}
