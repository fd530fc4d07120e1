//! Numbers about a store, for metrics.

use std::time::Duration;

/// A snapshot of a store's counters. Counters start at 0 when the store is opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreStats {
    /// Transactions committed with at least one message.
    pub commits: u64,
    /// Messages stored; divided by `commits` this is the mean batch.
    pub stored: u64,
    /// Posts answered with an earlier message because their id or key was known.
    pub repeated: u64,
    /// Posts refused (too large, key reused, keys full).
    pub refused: u64,
    /// Posts that failed with `Unavailable` or `OutcomeUnknown`.
    pub failed: u64,
    /// The largest batch so far.
    pub largest_batch: u64,
    /// Time spent in transactions with messages, BEGIN to the end of COMMIT, in total.
    pub commit_time: Duration,
    /// The longest of them.
    pub longest_commit: Duration,
    /// Posts waiting for the writer at this moment.
    pub queued: u64,
    /// Positions between the newest commit of this process and what is known to be published, those
    /// left by its predecessor included.
    pub unpublished: u64,
    /// Events removed by retention.
    pub expired: u64,
    /// Those of them that were younger than a day, and went for want of room: by `max_bytes`, or
    /// by what one channel may take of it.
    pub expired_early: u64,
    /// Channels forgotten after everything in them had expired.
    pub channels_forgotten: u64,
    /// Sender's keys forgotten before their time because there were too many.
    pub keys_dropped_early: u64,
    /// Posts refused because the sender, or the channel, has its share of the keys.
    pub keys_refused_by_share: u64,
    /// Posts refused because no key of anybody's could be remembered.
    pub keys_refused: u64,
    /// Sender's keys remembered.
    pub keys: u64,
    /// Numbers of events that were to be read and were found damaged.
    pub damaged: u64,
    /// Bytes of the database file.
    pub database_bytes: u64,
    /// Bytes of the write-ahead log.
    pub wal_bytes: u64,
    /// Checkpoints that could not finish because a reader stood in the way.
    pub checkpoints_blocked: u64,
}
