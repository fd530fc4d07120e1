//! What the store's threads and its callers both see.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

use tokio::sync::{mpsc, watch};

use crate::{StoreError, StoreStats, Unpublished};

/// Counters, the watermark and the follower.
///
/// The counters stand alone, so their order towards other memory does not matter (`Relaxed`).
pub(super) struct Shared {
    database: PathBuf,
    published_to: AtomicU64,
    /// Whether the writer knows that `published_to` moved.
    announced: AtomicBool,
    /// Whether the writer is asked to empty the write-ahead log.
    empty_log: AtomicBool,
    follower: Mutex<Option<mpsc::Sender<Vec<Unpublished>>>>,
    pub(super) commits: AtomicU64,
    pub(super) stored: AtomicU64,
    pub(super) repeated: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) largest_batch: AtomicU64,
    commit_micros: AtomicU64,
    longest_commit_micros: AtomicU64,
    pub(super) queued: AtomicU64,
    pub(super) expired: AtomicU64,
    pub(super) keys_dropped_early: AtomicU64,
    pub(super) keys: AtomicU64,
    checkpoints_blocked: AtomicU64,
}

impl Shared {
    pub(super) fn new(database: PathBuf, published_to: u64) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            database,
            published_to: AtomicU64::new(published_to),
            announced: AtomicBool::new(false),
            empty_log: AtomicBool::new(false),
            follower: Mutex::new(None),
            commits: zero(),
            stored: zero(),
            repeated: zero(),
            refused: zero(),
            failed: zero(),
            largest_batch: zero(),
            commit_micros: zero(),
            longest_commit_micros: zero(),
            queued: zero(),
            expired: zero(),
            keys_dropped_early: zero(),
            keys: zero(),
            checkpoints_blocked: zero(),
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

    pub(super) fn follow(&self, batches: usize) -> mpsc::Receiver<Vec<Unpublished>> {
        let (sender, receiver) = mpsc::channel(batches.max(1));
        *self.follower.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        receiver
    }

    /// Hands a batch to the follower; one whose queue is full is let go, and finds its end.
    pub(super) fn tell_follower(&self, batch: impl FnOnce() -> Vec<Unpublished>) {
        let mut follower = self.follower.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = follower.as_ref() else {
            return;
        };
        if sender.try_send(batch()).is_err() {
            *follower = None;
        }
    }

    pub(super) fn let_follower_go(&self) {
        *self.follower.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn count_commit(&self, messages: u64, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.commits.fetch_add(1, Relaxed);
        self.stored.fetch_add(messages, Relaxed);
        self.largest_batch.fetch_max(messages, Relaxed);
        self.commit_micros.fetch_add(micros, Relaxed);
        self.longest_commit_micros.fetch_max(micros, Relaxed);
    }

    pub(super) fn count_blocked_checkpoint(&self) {
        self.checkpoints_blocked.fetch_add(1, Relaxed);
    }

    /// Size of the write-ahead log's file.
    pub(super) fn wal_bytes(&self) -> u64 {
        self.file_bytes("-wal")
    }

    fn file_bytes(&self, suffix: &str) -> u64 {
        let mut path = self.database.clone().into_os_string();
        path.push(suffix);
        // A file that cannot be seen counts as empty: a number for metrics is no place to fail.
        std::fs::metadata(path).map_or(0, |file| file.len())
    }

    pub(super) fn stats(&self) -> StoreStats {
        StoreStats {
            commits: self.commits.load(Relaxed),
            stored: self.stored.load(Relaxed),
            repeated: self.repeated.load(Relaxed),
            refused: self.refused.load(Relaxed),
            failed: self.failed.load(Relaxed),
            largest_batch: self.largest_batch.load(Relaxed),
            commit_time: Duration::from_micros(self.commit_micros.load(Relaxed)),
            longest_commit: Duration::from_micros(self.longest_commit_micros.load(Relaxed)),
            queued: self.queued.load(Relaxed),
            expired: self.expired.load(Relaxed),
            keys_dropped_early: self.keys_dropped_early.load(Relaxed),
            keys: self.keys.load(Relaxed),
            database_bytes: self.file_bytes(""),
            wal_bytes: self.wal_bytes(),
            checkpoints_blocked: self.checkpoints_blocked.load(Relaxed),
        }
    }
}

/// Rings when one of the store's threads panics.
#[derive(Clone, Default)]
pub(super) struct Alarm(Arc<watch::Sender<bool>>);

impl Alarm {
    pub(super) fn watch(&self) -> watch::Receiver<bool> {
        self.0.subscribe()
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.send_replace(true);
        }
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
