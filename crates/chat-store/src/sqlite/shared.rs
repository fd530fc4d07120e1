//! What the store's threads and its callers both see.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread::JoinHandle;

use super::mark::Marker;
use crate::alarm::Alarm;
use crate::counters::Counters;
use crate::follower::Follower;
use crate::{StoreError, StoreStats};

/// Counters, the watermark and the follower.
pub(super) struct Shared {
    database: PathBuf,
    published_to: AtomicU64,
    /// Whether the writer knows that `published_to` moved.
    announced: AtomicBool,
    /// Whether the writer is asked to empty the write-ahead log.
    empty_log: AtomicBool,
    /// Whether the database could not grow.
    wants_room: AtomicBool,
    pub(super) follower: Follower,
    pub(super) counters: Counters,
    checkpoints_blocked: AtomicU64,
    /// Size of the write-ahead log at which posts wait until it is emptied.
    too_large_log: u64,
    mark: Marker,
}

impl Shared {
    pub(super) fn new(
        database: PathBuf,
        published_to: u64,
        newest: u64,
        too_large_log: u64,
    ) -> Self {
        let counters = Counters::default();
        counters.newest.store(newest, Relaxed);
        Self {
            mark: Marker::new(database.parent().unwrap_or(&database)),
            database,
            published_to: AtomicU64::new(published_to),
            announced: AtomicBool::new(false),
            empty_log: AtomicBool::new(false),
            wants_room: AtomicBool::new(false),
            follower: Follower::default(),
            counters,
            checkpoints_blocked: AtomicU64::new(0),
            too_large_log,
        }
    }

    pub(super) fn published_to(&self) -> u64 {
        self.published_to.load(Relaxed)
    }

    /// Raises the watermark; true if the writer has to be told.
    pub(super) fn raise_published(&self, to: u64) -> bool {
        self.published_to.fetch_max(to, Relaxed) < to && !self.announced.swap(true, Relaxed)
    }

    /// The writer is about to save the watermark: later moves are announced again.
    pub(super) fn take_announcement(&self) {
        self.announced.store(false, Relaxed);
    }

    pub(super) fn wish_empty_log(&self) {
        self.empty_log.store(true, Relaxed);
    }

    /// Whether it was wished since the last time.
    pub(super) fn take_wish(&self) -> bool {
        self.empty_log.load(Relaxed) && self.empty_log.swap(false, Relaxed)
    }

    /// The disk has no room for what is in the write-ahead log.
    pub(super) fn wish_room(&self) {
        self.wants_room.store(true, Relaxed);
    }

    /// Whether that was so since the last time.
    pub(super) fn takes_room(&self) -> bool {
        self.wants_room.load(Relaxed) && self.wants_room.swap(false, Relaxed)
    }

    pub(super) fn count_blocked_checkpoint(&self) {
        self.checkpoints_blocked.fetch_add(1, Relaxed);
    }

    /// Whether the log has grown so large that the writer has to empty it.
    pub(super) fn is_log_too_large(&self) -> bool {
        self.wal_bytes() > self.too_large_log
    }

    /// Size of the write-ahead log's file.
    pub(super) fn wal_bytes(&self) -> u64 {
        self.file_bytes("-wal")
    }

    /// Writes the mark beside the database: at the start, with a log all of which is on the disk, ...
    pub(super) fn begin_mark(&self) {
        self.mark.begin(self.newest(), self.wal_bytes());
    }

    /// ... every now and then if the store has grown, ...
    pub(super) fn tick_mark(&self) {
        self.mark.tick(self.newest(), || self.wal_bytes());
    }

    /// ... and before the write-ahead log may go with the last connection.
    pub(super) fn settle_mark(&self) {
        self.mark.settle(self.newest());
    }

    /// Runs what cuts the write-ahead log, so that nobody misses it; `None` if that cannot be had.
    pub(super) fn cutting_log<T>(&self, cut: impl FnOnce() -> T) -> Option<T> {
        self.mark.cutting(self.newest(), cut)
    }

    fn newest(&self) -> u64 {
        self.counters.newest.load(Relaxed)
    }

    fn file_bytes(&self, suffix: &str) -> u64 {
        let mut path = self.database.clone().into_os_string();
        path.push(suffix);
        // A file that cannot be seen counts as empty: a number for metrics is no place to fail.
        std::fs::metadata(path).map_or(0, |file| file.len())
    }

    pub(super) fn stats(&self) -> StoreStats {
        let newest = self.counters.newest.load(Relaxed);
        StoreStats {
            unpublished: newest.saturating_sub(self.published_to()),
            database_bytes: self.file_bytes(""),
            wal_bytes: self.wal_bytes(),
            checkpoints_blocked: self.checkpoints_blocked.load(Relaxed),
            ..self.counters.snapshot()
        }
    }
}

/// Writes the mark of a log that may go, also when its holder panics.
pub(super) struct SettlesMark(pub(super) Arc<Shared>);

impl Drop for SettlesMark {
    fn drop(&mut self) {
        self.0.settle_mark();
    }
}

/// Starts one of the store's threads, which rings `alarm` if it panics.
pub(super) fn spawn(
    name: &str,
    alarm: &Alarm,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, StoreError> {
    let alarm = alarm.clone();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            // Dropped with the thread, also when it panics.
            let _alarm = alarm;
            work();
        })
        .map_err(|error| StoreError::unavailable(format!("cannot start a thread: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::mark::Mark;

    #[test]
    fn log_that_went_in_a_panic_is_not_missed() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("store.sqlite3");
        std::fs::write(dir.path().join("store.sqlite3-wal"), "a log").unwrap();
        let shared = Arc::new(Shared::new(database, 0, 7, u64::MAX));
        shared.begin_mark();
        assert!(Mark::read(dir.path()).unwrap().missing(7, 0).is_some());
        let panicking = shared.clone();
        let writer = std::thread::spawn(move || {
            let _settles = SettlesMark(panicking);
            panic!("as a writer may");
        });
        writer.join().unwrap_err();
        (0..2).for_each(|_| shared.tick_mark());
        assert_eq!(Mark::read(dir.path()).unwrap().missing(7, 0), None);
    }
}
