//! What an operator can set about a SQLite store.

use std::{path::PathBuf, time::Duration};

use service_kit::clock::SharedClock;

use crate::StoreError;

/// How to open a [`SqliteStore`](crate::SqliteStore).
#[derive(Clone)]
pub struct SqliteOptions {
    /// The folder of the store; created when it is missing. One process at a time uses it.
    pub dir: PathBuf,
    /// The clock for `at`, epochs and retention.
    pub clock: SharedClock,
    /// When events expire.
    pub retention: Retention,
    /// How long and how many of the senders' own ids and keys are remembered.
    pub keys: KeyMemory,
    /// Threads (and connections) for reading, 1 to 16.
    pub readers: usize,
    /// Bytes that posts may take while they wait for the writer, at least 1 MiB.
    pub queue_bytes: usize,
    /// Posts in one transaction at most, 1 to 10,000.
    pub batch: usize,
    /// Channels whose head the writer keeps in memory, at least 2. About 200 bytes each.
    pub cached_channels: usize,
    /// Hard upper limit of the database file in bytes: above it posts fail as on a full disk.
    /// Set it well above `retention.max_bytes`, which deletes instead of failing. `None`: the disk
    /// is the limit.
    pub max_file_bytes: Option<u64>,
}

/// When events expire: whichever rule comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Age at which an event expires, by the store's own clock, which no jump of the system's
    /// clock can push forward.
    pub max_age: Duration,
    /// Newest events kept for each channel, at least 1.
    pub max_per_channel: u64,
    /// Bytes in use in the database (not the file's size, which shrinks later); above it the
    /// oldest events go, whatever their channel.
    pub max_bytes: u64,
}

impl Default for Retention {
    /// 30 days, 100,000 events a channel, 10 GiB.
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(30 * 24 * 3600),
            max_per_channel: 100_000,
            max_bytes: 10 << 30,
        }
    }
}

/// How long and how many of the senders' own ids and keys are remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyMemory {
    /// How long a key is remembered.
    pub max_age: Duration,
    /// Keys remembered at most, at least 2 (a post may bring an id and a key). At the bound the
    /// oldest go first.
    pub max_count: u64,
    /// The age below which a key is never forgotten; posts with a key are refused instead.
    pub min_age: Duration,
}

impl Default for KeyMemory {
    /// 24 hours, 1,000,000 keys (about 100 MB), none younger than an hour forgotten.
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(24 * 3600),
            max_count: 1_000_000,
            min_age: Duration::from_secs(3600),
        }
    }
}

impl SqliteOptions {
    /// Options with all defaults for the store in `dir`.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, clock: SharedClock) -> Self {
        Self {
            dir: dir.into(),
            clock,
            retention: Retention::default(),
            keys: KeyMemory::default(),
            readers: 2,
            queue_bytes: 16 << 20,
            batch: 512,
            cached_channels: 20_000,
            max_file_bytes: None,
        }
    }

    pub(crate) fn validate(&self) -> Result<(), StoreError> {
        let check = |fine: bool, option: &'static str, reason: &str| {
            if fine {
                Ok(())
            } else {
                Err(StoreError::BadOption {
                    option,
                    reason: reason.to_owned(),
                })
            }
        };
        check(
            (1..=16).contains(&self.readers),
            "readers",
            "must be 1 to 16",
        )?;
        check(
            self.queue_bytes >= 1 << 20,
            "queue_bytes",
            "must be at least 1 MiB",
        )?;
        check(
            (1..=10_000).contains(&self.batch),
            "batch",
            "must be 1 to 10,000",
        )?;
        check(
            self.cached_channels >= 2,
            "cached_channels",
            "must be at least 2",
        )?;
        check(
            self.retention.max_per_channel >= 1,
            "retention.max_per_channel",
            "must be at least 1",
        )?;
        check(
            self.keys.max_count >= 2,
            "keys.max_count",
            "must be at least 2",
        )?;
        check(
            self.keys.min_age <= self.keys.max_age,
            "keys.min_age",
            "must not exceed keys.max_age",
        )
    }
}
