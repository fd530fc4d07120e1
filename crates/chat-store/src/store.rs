//! A store as a whole: what it keeps, and how it is.

use async_trait::async_trait;

use crate::{Log, Outbox, StoreError, StoreStats};

/// Everything that is kept. There is a trait for each concern; an implementation has them all, and a
/// caller asks for the one that it needs.
///
/// A failure passes without a restart when its cause does.
#[async_trait]
pub trait Store: Log + Outbox {
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
