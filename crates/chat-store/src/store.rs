//! What the services ask of a store, whatever it is made of.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chat_model::{
    ChannelId, Damaged, Epoch, Head, MAX_PAGE_BYTES, MAX_PAGE_EVENTS, NewMessage, Seq,
};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::{StoreError, StoreStats};

/// The durable log of every channel.
///
/// What every implementation owes, and the [`contract`](crate::contract) suite checks:
///
/// - **Stored before said.** [`append`](Self::append) returns `Ok` only when the message survives
///   a power cut. Any error but [`StoreError::OutcomeUnknown`] means that nothing was stored.
/// - **Dense.** In each channel `seq` is 1, 2, 3 … without holes, allotted in the transaction that
///   stores the message, however many callers there are.
/// - **Same bytes.** An event is encoded once; every later read returns those bytes.
/// - **Reads never wait for writes**, and what `append` has answered is in every later read.
/// - **The log is the outbox.** [`unpublished`](Self::unpublished) lists what was committed in an
///   order in which nothing ever appears before a position already listed.
/// - A failure passes without a restart when its cause does.
///
/// All futures may be dropped at any time; a message whose `append` was dropped may or may not be
/// stored.
///
/// Several processes may write to one store, if its implementation says so. Each of them publishes
/// what it has stored itself, and what a process that is gone has left.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Stores a message as the next event of its channel.
    ///
    /// A message whose id (or key, if it has no id of its sender's) was used in the channel before
    /// (remembered for a day, see [`StoreError::KeysFull`]) is not stored again: the answer is [`Appended::Repeated`] if it
    /// is the same message, [`StoreError::KeyReused`] if not.
    async fn append(&self, new: Append) -> Result<Appended, StoreError>;

    /// One page of a channel's events, ascending, with the head of the log at the same moment.
    ///
    /// A page that does not begin right after the asked position says that what lies between has
    /// expired. There is always one event if there is any in the range, whatever its size; or what
    /// cannot be read any more is named in its place ([`StoredPage::damaged`]).
    /// [`StoreError::Damaged`] if it is the channel's own entry that cannot be read.
    async fn page(
        &self,
        channel: ChannelId,
        range: PageRange,
        limit: PageLimit,
    ) -> Result<StoredPage, StoreError>;

    /// The heads of channels at one moment, in the order asked; [`Head::none`] for those unknown.
    /// Those whose entries are damaged are left out.
    async fn heads(&self, channels: &[ChannelId]) -> Result<Vec<Head>, StoreError>;

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

    /// Whether the store can write now, found out by writing if it has not for a few seconds.
    async fn check(&self) -> Result<(), StoreError>;

    /// What of the store was found damaged since it was opened, the first of it in words; `None`
    /// while nothing was.
    fn damage(&self) -> Option<String>;

    /// The counters at this moment. Cheap.
    fn stats(&self) -> StoreStats;

    /// Waits until the store is of no use any more for a reason that lies in this process, such as
    /// a thread that panicked. Whoever runs it had best end the process then, and start anew with
    /// what was committed.
    async fn broken(&self);

    /// Gives every log a new epoch, which starts after the newest event that is kept.
    ///
    /// For a store whose newest events may be missing, because it was put back from a copy.
    /// Returns the number of logs; `None` if they have it and could not be counted.
    async fn new_epoch(&self) -> Result<Option<u64>, StoreError>;

    /// Stores what was already asked, saves the watermark and stops. Later calls answer
    /// [`StoreError::Unavailable`].
    async fn close(&self);
}

/// A message to be stored.
#[derive(Debug, Clone)]
pub struct Append {
    /// The channel; it need not exist yet.
    pub channel: ChannelId,
    /// What to store.
    pub message: NewMessage,
    /// The sender's `Idempotency-Key`; of a message that has an id of its sender's, nothing is made
    /// of it.
    pub key: Option<IdempotencyKey>,
    /// Whose share of what the store can remember it takes.
    pub owner: Owner,
    /// Bytes that the encoded event may have at most.
    pub max_event_bytes: usize,
}

/// What became of an [`Append`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Appended {
    /// It is stored.
    Stored {
        /// The event as it will be read and published.
        event: Bytes,
        /// Epoch of the log.
        epoch: Epoch,
        /// Number in the channel.
        seq: Seq,
        /// The sender's id, or the UUIDv7 that it was given.
        id: Uuid,
        /// Place in the outbox.
        position: Position,
    },
    /// It had been stored before.
    Repeated {
        /// The event as stored then; `None` when it has expired.
        event: Option<Bytes>,
        /// Epoch in which it was stored.
        epoch: Epoch,
        /// Its number.
        seq: Seq,
        /// Its id.
        id: Uuid,
    },
}

/// Who has a share of what the store can remember. What the number stands for is the caller's
/// affair; the store only compares.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Owner(u64);

impl Owner {
    /// The one of this number.
    #[must_use]
    pub fn new(number: u64) -> Self {
        Self(number)
    }
}

/// A sender's `Idempotency-Key`, hashed: it takes the same room whatever its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IdempotencyKey([u8; 16]);

impl IdempotencyKey {
    /// The key that is written so in the request.
    #[must_use]
    pub fn new(text: &[u8]) -> Self {
        let digest = Sha256::digest(text);
        let mut short = [0; 16];
        // 128 bits: two keys that clash by chance are beyond any sender's means.
        short.copy_from_slice(&digest[..16]);
        Self(short)
    }

    pub(crate) fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// Which events of a channel a page has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageRange {
    /// The oldest with a number above this one.
    After(Seq),
    /// The newest with a number below this one.
    Before(Seq),
    /// The newest.
    Newest,
}

/// How much a page has at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageLimit {
    /// Events, 1 to 1,000; other values count as the nearest of these.
    pub events: usize,
    /// Bytes of all events together, at most 1 MiB; exceeded only by a single first event.
    pub bytes: usize,
}

impl PageLimit {
    /// The largest page.
    pub const MAX: Self = Self {
        events: MAX_PAGE_EVENTS,
        bytes: MAX_PAGE_BYTES,
    };

    /// At most this many events, of at most 1 MiB.
    #[must_use]
    pub fn events(events: usize) -> Self {
        Self {
            events,
            ..Self::MAX
        }
    }

    pub(crate) fn clamped(self) -> Self {
        Self {
            events: self.events.clamp(1, MAX_PAGE_EVENTS),
            bytes: self.bytes.min(MAX_PAGE_BYTES),
        }
    }
}

/// A page of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPage {
    /// The log's head at the moment of reading.
    pub head: Head,
    /// Encoded events, ascending.
    pub events: Vec<Bytes>,
    /// Numbers of the page whose events cannot be read any more, ascending. They count towards the
    /// limit like events.
    pub damaged: Vec<Damaged>,
}

/// A place in the order in which the store hands out what was committed.
///
/// Only comparisons have a meaning. A store with several writers has a lane for each, and orders
/// positions within a lane only; the SQLite store has one lane, 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    lane: u32,
    offset: u64,
}

impl Position {
    /// Before everything in lane 0. An outbox begins at [`Store::published_to`] instead, which
    /// knows the lane.
    pub const START: Self = Self { lane: 0, offset: 0 };

    /// A place in a lane; for implementations of [`Store`].
    #[must_use]
    pub fn new(lane: u32, offset: u64) -> Self {
        Self { lane, offset }
    }

    /// The lane.
    #[must_use]
    pub fn lane(self) -> u32 {
        self.lane
    }

    /// The place in the lane. It grows, with holes.
    #[must_use]
    pub fn offset(self) -> u64 {
        self.offset
    }
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
