//! What is asked of the log of every channel, whatever it is kept in.

use async_trait::async_trait;
use bytes::Bytes;
use chat_model::{
    ChannelId, Damaged, Epoch, Head, MAX_PAGE_BYTES, MAX_PAGE_EVENTS, NewMessage, Seq,
};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{Position, StoreError};

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
///
/// All futures may be dropped at any time; a message whose `append` was dropped may or may not be
/// stored.
#[async_trait]
pub trait Log: Send + Sync + 'static {
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
