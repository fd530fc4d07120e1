//! What every [`Store`](crate::Store) owes, as tests that any implementation runs.
//!
//! An implementation provides a [`Bench`], which opens the same store again and again on a clock
//! that the suite holds, and calls [`all`] (or single cases) in a tokio runtime of any kind.
//! A case panics where the store breaks its promise.

mod appending;
mod dedupe;
mod epochs;
mod outbox;
mod pages;
mod retention;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chat_model::{ChannelId, NewMessage, Seq};
use clock::TestClock;
use uuid::Uuid;

use crate::{Append, Appended, Owner, Store};

/// Where the suite gets its stores from.
#[async_trait]
pub trait Bench: Send + Sync {
    /// Opens the store, empty the first time. The suite closes it before it asks again.
    async fn open(&self) -> Arc<dyn Store>;

    /// The clock that all these stores run on; the suite moves it.
    fn clock(&self) -> &TestClock;

    /// Makes all that is stored older by this time, by the clock that tells
    /// [`oldest_unpublished`](Store::oldest_unpublished).
    async fn age(&self, store: &Arc<dyn Store>, by: Duration);

    /// Lets the store forget what its retention and the clock say should go.
    async fn expire(&self, store: &Arc<dyn Store>);
}

/// Events kept for each channel by the stores of a [`Bench`].
pub const KEPT_PER_CHANNEL: u64 = 50;

/// What the events of each channel may take in the stores of a [`Bench`].
pub const KEPT_BYTES_PER_CHANNEL: u64 = 256 << 10;

/// Keys remembered at most by the stores of a [`Bench`].
pub const MOST_KEYS: u64 = 200;

/// Runs every case, each on a bench of its own.
pub async fn all<B: Bench>(mut fresh: impl FnMut() -> B) {
    appending::numbers_are_dense_under_concurrent_posts(&fresh()).await;
    appending::event_is_read_as_it_was_answered(&fresh()).await;
    appending::too_large_event_leaves_nothing(&fresh()).await;
    appending::time_never_decreases_unless_it_was_wrong(&fresh()).await;
    appending::log_goes_on_after_reopening(&fresh()).await;
    dedupe::same_id_or_key_is_stored_once(&fresh()).await;
    dedupe::same_key_at_the_same_time_is_stored_once(&fresh()).await;
    dedupe::another_message_with_the_key_is_refused(&fresh()).await;
    dedupe::key_beside_an_id_is_not_remembered(&fresh()).await;
    dedupe::greedy_sender_fills_his_share_only(&fresh()).await;
    dedupe::key_is_forgotten_after_a_day(&fresh()).await;
    dedupe::repeated_post_of_an_expired_event_names_it(&fresh()).await;
    pages::unknown_channel_is_empty(&fresh()).await;
    pages::pages_have_exact_edges(&fresh()).await;
    pages::pages_are_bounded_by_bytes(&fresh()).await;
    pages::expired_events_leave_a_gap_and_the_head(&fresh()).await;
    outbox::outbox_has_every_event_in_order(&fresh()).await;
    outbox::watermark_survives_reopening(&fresh()).await;
    outbox::position_is_never_used_twice(&fresh()).await;
    outbox::oldest_unpublished_is_found(&fresh()).await;
    outbox::follower_sees_commits_in_order(&fresh()).await;
    outbox::slow_follower_is_let_go(&fresh()).await;
    epochs::new_epoch_starts_after_the_kept_head(&fresh()).await;
    epochs::epochs_increase_even_if_the_clock_goes_back(&fresh()).await;
    epochs::list_of_epochs_is_bounded(&fresh()).await;
}

/// What every store owes about the room that channels take: part of [`all`] as soon as each does.
pub async fn room<B: Bench>(mut fresh: impl FnMut() -> B) {
    retention::one_channel_cannot_push_out_the_others(&fresh()).await;
    retention::forgotten_channel_begins_anew_in_a_later_epoch(&fresh()).await;
}

fn channel(number: u128) -> ChannelId {
    Uuid::from_u128(number).into()
}

fn text(channel: ChannelId, text: &str) -> Append {
    Append {
        channel,
        message: NewMessage::text(text),
        key: None,
        owner: Owner::default(),
        max_event_bytes: 64 * 1024,
    }
}

fn with_id(channel: ChannelId, words: &str, id: u128) -> Append {
    let mut new = text(channel, words);
    new.message.id = Some(Uuid::from_u128(id));
    new
}

/// Stores a message that must be new.
async fn store(store: &Arc<dyn Store>, new: Append) -> (Seq, Bytes) {
    match store.append(new).await {
        Ok(Appended::Stored { seq, event, .. }) => (seq, event),
        other => panic!("not stored: {other:?}"),
    }
}

/// Stores `count` messages one after the other.
async fn fill(at: &Arc<dyn Store>, channel: ChannelId, count: u64) -> Vec<Bytes> {
    let mut events = Vec::new();
    for number in 1..=count {
        events.push(
            store(at, text(channel, &format!("message {number}")))
                .await
                .1,
        );
    }
    events
}
