//! What is asked of the log as the outbox of what is published.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chat_model::ChannelId;
use tokio::sync::mpsc;

use crate::{PageLimit, Position, StoreError};

/// The log as the outbox: what was committed, in an order in which nothing ever appears before a
/// position already listed.
///
/// Several processes may write to one store, if its implementation says so. Each of them publishes
/// what it has stored itself, and what a process that is gone has left.
#[async_trait]
pub trait Outbox: Send + Sync + 'static {
    /// Events after a position in the order of the log, for the outbox; empty at its end. What
    /// cannot be read any more is passed over.
    async fn unpublished(
        &self,
        after: Position,
        limit: PageLimit,
    ) -> Result<Vec<Unpublished>, StoreError>;

    /// The position up to which everything is known to be published: where the outbox begins at
    /// start, and whenever a follower has ended, for the lane may be another one then. It may lie
    /// a little behind what was last given to [`mark_published`](Self::mark_published) before a
    /// crash.
    async fn published_to(&self) -> Result<Position, StoreError>;

    /// Notes that everything up to and including a position is published. Returns at once; saved
    /// with some later commit, within seconds, and at [`close`](Self::close). A position below the
    /// highest noted, or of another lane, changes nothing.
    fn mark_published(&self, up_to: Position);

    /// How long ago the oldest event was committed that is not known to be published, whoever stored
    /// it; `None` when there is none. What was published within the last second may count as not
    /// published.
    ///
    /// Both ends of that time are told by one clock, that of the store itself where several processes
    /// share it. An event of its future, which a clock that was put back leaves, counts as old.
    async fn oldest_unpublished(&self) -> Result<Option<Duration>, StoreError>;

    /// Follows what is committed from now on, in the order of the log, without reading it back.
    ///
    /// At most `batches` batches wait in the queue. A follower that lets it fill up is dropped, and
    /// so is one that the store cannot tell of everything: its receiver ends (`None`) after what is
    /// queued. Then, and at the start: follow first, ask [`published_to`](Self::published_to)
    /// whether the lane is the same, read [`unpublished`](Self::unpublished) to its end, then take
    /// from here what lies beyond. There is one follower at a time; a new one replaces the old.
    fn follow(&self, batches: usize) -> mpsc::Receiver<Vec<Unpublished>>;
}

/// An event on its way to the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpublished {
    /// Where it stands in the outbox.
    pub position: Position,
    /// The channel, which names the topic.
    pub channel: ChannelId,
    /// The encoded event.
    pub event: Bytes,
    /// When it was committed, in milliseconds since 1970, by the store's clock.
    pub committed_at: u64,
}
