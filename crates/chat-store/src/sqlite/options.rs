//! What an operator can set about a SQLite store.

use std::path::PathBuf;

use clock::SharedClock;

use crate::retention::check_option;
use crate::{KeyMemory, OpenError, Retention, queue};

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
    /// Threads (and connections) for reading, 1 to 16. If there are several, pages of history leave
    /// one of them to the outbox and to whoever compares heads.
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
    /// Bytes of the disk that are kept for the store's own work, at most a tenth of it: without
    /// room it could neither remove anything nor bring its write-ahead log into the database. While
    /// they cannot be had, the disk counts as full. 0: none.
    pub reserve_bytes: u64,
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
            readers: 3,
            queue_bytes: 16 << 20,
            batch: 512,
            cached_channels: 20_000,
            max_file_bytes: None,
            reserve_bytes: 0,
        }
    }

    pub(crate) fn validate(&self) -> Result<(), OpenError> {
        check_option(
            (1..=16).contains(&self.readers),
            "readers",
            "must be 1 to 16",
        )?;
        queue::check_options(self.queue_bytes, self.batch)?;
        check_option(
            self.cached_channels >= 2,
            "cached_channels",
            "must be at least 2",
        )?;
        self.retention.validate()?;
        self.keys.validate()
    }
}
