//! A second place that knows how far the store has come: a small file beside the database.
//!
//! A database whose newest commits are missing (a write-ahead log cut off or removed, an older copy
//! put in its place) is a good database: nothing in it tells. The mark does. It is written at each
//! start, at each stop in good order, and every second while messages are stored; so after a kill or
//! a power cut the last second is the part of which it may not know. (Of the size of the log, the
//! last two: what has come since the last commit may not be on the disk yet.) That a log was there
//! is known from the start, when one is begun for the mark to know of.

use std::fs::{File, read_to_string, remove_file, rename};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use service_kit::log_limit::LogLimit;

use super::folder::DATABASE;
use super::sync_entries;
use crate::OpenError;

const NAME: &str = "store.mark";
/// How often it is written while the store grows.
pub(super) const EVERY: Duration = Duration::from_secs(1);
/// A disk that is full stays so for long.
static NOT_WRITTEN: LogLimit = LogLimit::per_minute(1);

/// How far the store has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// The newest position that was committed.
    pub(super) position: u64,
    /// Bytes of the write-ahead log, which only grows while the store is open; 0 if it may be gone.
    pub(super) wal_bytes: u64,
}

impl Mark {
    /// What a folder's mark says; `None` if there is none that can be read.
    pub(super) fn read(dir: &Path) -> Option<Self> {
        let path = dir.join(NAME);
        let text = match read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(%error, file = %path.display(), "the store's mark cannot be read");
                return None;
            }
        };
        let mark = Self::parse(&text);
        if mark.is_none() {
            tracing::warn!(file = %path.display(), "the store's mark makes no sense");
        }
        mark
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut number = |name| lines.next()?.strip_prefix(name)?.trim().parse().ok();
        Some(Self {
            position: number("position ")?,
            wal_bytes: number("wal ")?,
        })
    }

    /// Writes it, so that a crash leaves the old one or the new one.
    pub(super) fn write(self, dir: &Path) -> std::io::Result<()> {
        let path = dir.join(NAME);
        let new = path.with_extension("mark.new");
        let mut file = File::create(&new)?;
        write!(file, "position {}\nwal {}\n", self.position, self.wal_bytes)?;
        file.sync_all()?;
        rename(&new, &path)?;
        sync_entries(dir);
        Ok(())
    }

    /// Notes that the write-ahead log is whole, before it is brought into the database: whoever is
    /// stopped in between finds no log, and nothing is missing.
    pub(super) fn settle_log(self, dir: &Path, wal_bytes: u64) {
        if self.wal_bytes == 0 || wal_bytes < self.wal_bytes {
            return;
        }
        self.with_log(dir, 0);
    }

    /// Notes that a part of the write-ahead log cannot be read, before the rest of it is brought into
    /// the database: whoever is stopped in between still misses it.
    pub(super) fn miss_log(self, dir: &Path, wal_bytes: u64) {
        if self.wal_bytes <= wal_bytes {
            self.with_log(dir, wal_bytes + 1);
        }
    }

    fn with_log(self, dir: &Path, wal_bytes: u64) {
        let mark = Self { wal_bytes, ..self };
        if let Err(error) = mark.write(dir) {
            tracing::warn!(%error, dir = %dir.display(), "the store's mark could not be written");
        }
    }

    /// Refuses a folder whose database is gone: most likely a disk is not mounted, or a file was
    /// moved; to begin anew would hide that.
    ///
    /// # Errors
    /// [`OpenError::Unusable`].
    pub(super) fn expect_database(self, dir: &Path) -> Result<(), OpenError> {
        let bytes = std::fs::metadata(dir.join(DATABASE)).map_or(0, |file| file.len());
        if bytes > 0 || self.position == 0 {
            return Ok(());
        }
        Err(OpenError::Unusable {
            dir: dir.to_owned(),
            reason: format!(
                "it held {} messages, and {DATABASE} is missing or empty: put it back, or a copy \
                 with `hark restore` (after moving what is left away); to begin anew without them, \
                 remove {NAME}",
                self.position
            ),
        })
    }

    /// What is missing of a store, in words, whose newest position is this one and whose write-ahead
    /// log was so long before it was opened.
    pub(super) fn missing(self, newest: u64, wal_bytes: u64) -> Option<String> {
        if newest < self.position {
            let lost = self.position - newest;
            return Some(format!("{lost} of its newest messages are missing"));
        }
        (wal_bytes < self.wal_bytes).then(|| {
            format!(
                "its write-ahead log had {} bytes and has {wal_bytes}: its newest messages may be \
                 missing",
                self.wal_bytes
            )
        })
    }
}

/// Removes a folder's mark: what is in the folder now has another history.
pub(super) fn forget(dir: &Path) {
    if let Err(error) = remove(dir) {
        let path = dir.join(NAME);
        tracing::warn!(%error, file = %path.display(), "the old mark could not be removed");
    }
}

fn remove(dir: &Path) -> std::io::Result<()> {
    match remove_file(dir.join(NAME)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes the mark of a store that is open.
pub(super) struct Marker {
    dir: PathBuf,
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    /// The mark as it was last written; `None` if it may be another.
    written: Option<Mark>,
    /// The size of the write-ahead log that was last seen, and the newest position then; 0 bytes
    /// after it was cut.
    seen: (u64, u64),
    /// Bytes of the log that are on the disk.
    synced: u64,
    /// The log may go at any time from here on.
    is_settled: bool,
}

impl Marker {
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            last: Mutex::default(),
        }
    }

    /// Writes it if the store has grown since. The size is read here, so that nobody cuts the log
    /// between reading and writing. Only what had been there before the newest commit counts: what
    /// has come since may not be on the disk yet.
    pub(super) fn tick(&self, position: u64, wal_bytes: impl FnOnce() -> u64) {
        let mut last = self.lock();
        if last.is_settled {
            return;
        }
        let (bytes, at) = last.seen;
        if position > at {
            last.synced = bytes;
        }
        let now = wal_bytes();
        last.seen = (now, position);
        let synced = now.min(last.synced);
        self.write(&mut last, position, synced);
    }

    /// Writes it as one of a store that has just begun its log, of so many bytes.
    pub(super) fn begin(&self, position: u64, wal_bytes: u64) {
        let mut last = self.lock();
        last.seen = (wal_bytes, position);
        last.synced = wal_bytes;
        self.write(&mut last, position, wal_bytes);
    }

    /// The same, and it stays so.
    pub(super) fn settle(&self, position: u64) {
        let mut last = self.lock();
        last.is_settled = true;
        self.write(&mut last, position, 0);
    }

    /// Lets the log be cut: `cut` is called once no mark misses what it cuts, and none is written
    /// before it has ended. `None` if that could not be had.
    pub(super) fn cutting<T>(&self, position: u64, cut: impl FnOnce() -> T) -> Option<T> {
        let mut last = self.lock();
        last.seen = (0, position);
        last.synced = 0;
        if !self.write(&mut last, position, 0) {
            // On a full disk there is no room for another one; without any, nothing is missed.
            last.written = None;
            if let Err(error) = remove(&self.dir) {
                tracing::warn!(%error, "the store's mark is in the way of cutting its log");
                return None;
            }
        }
        Some(cut())
    }

    /// Whether it is written so now.
    fn write(&self, last: &mut Last, position: u64, wal_bytes: u64) -> bool {
        let mark = Mark {
            position,
            wal_bytes,
        };
        if last.written == Some(mark) {
            return true;
        }
        match mark.write(&self.dir) {
            Ok(()) => last.written = Some(mark),
            Err(error) => {
                if let Some(left_out) = NOT_WRITTEN.line() {
                    let again = "the store's mark cannot be written; trying again";
                    tracing::warn!(%error, left_out, "{again}");
                }
            }
        }
        last.written == Some(mark)
    }

    fn lock(&self) -> MutexGuard<'_, Last> {
        self.last.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_that_is_whole_is_not_missed_once_it_is_folded_in() {
        let folder = tempfile::tempdir().unwrap();
        let mark = Mark {
            position: 100,
            wal_bytes: 5_000,
        };
        mark.write(folder.path()).unwrap();
        mark.settle_log(folder.path(), 4_999);
        assert_eq!(Mark::read(folder.path()), Some(mark), "it is too short");
        mark.settle_log(folder.path(), 5_000);
        let settled = Mark::read(folder.path()).unwrap();
        assert_eq!(settled.missing(100, 0), None);
        assert!(settled.missing(99, 0).is_some());
    }

    #[test]
    fn only_what_was_there_before_the_last_commit_is_missed() {
        let dir = tempfile::tempdir().unwrap();
        let marker = Marker::new(dir.path());
        let wal_bytes = |marked: u64| {
            let mark = Mark::read(dir.path()).unwrap();
            assert_eq!(mark.wal_bytes, marked, "at position {}", mark.position);
        };
        marker.begin(1, 4_000);
        wal_bytes(4_000);
        marker.tick(1, || 9_000);
        wal_bytes(4_000);
        marker.tick(1, || 9_000);
        wal_bytes(4_000);
        marker.tick(2, || 9_500);
        wal_bytes(9_000);
        // Cut, and grown again, which need not be on the disk.
        assert_eq!(marker.cutting(3, || wal_bytes(0)), Some(()));
        marker.tick(4, || 20_000);
        wal_bytes(0);
        marker.tick(4, || 20_000);
        wal_bytes(0);
        marker.tick(5, || 20_000);
        wal_bytes(20_000);
        marker.settle(6);
        marker.tick(7, || 30_000);
        marker.tick(8, || 30_000);
        wal_bytes(0);
    }

    #[test]
    fn log_is_not_cut_while_a_mark_says_that_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let marker = Marker::new(dir.path());
        marker.begin(1, 4_000);
        // Where the new mark would be written, something is in the way.
        std::fs::create_dir(dir.path().join("store.mark.new")).unwrap();
        assert_eq!(marker.cutting(2, || Mark::read(dir.path())), Some(None));
        // Nor can the old one be removed.
        std::fs::create_dir(dir.path().join(NAME)).unwrap();
        assert_eq!(marker.cutting(3, || ()), None);
    }

    #[test]
    fn tick_waits_until_the_log_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let marker = Marker::new(dir.path());
        let size = std::sync::atomic::AtomicU64::new(4_000);
        let read = || size.load(std::sync::atomic::Ordering::Relaxed);
        marker.tick(0, read);
        std::thread::scope(|scope| {
            let mut ticks = None;
            marker.cutting(0, || {
                ticks = Some(scope.spawn(|| (1..3).for_each(|at| marker.tick(at, read))));
                size.store(0, std::sync::atomic::Ordering::Relaxed);
            });
            ticks.unwrap().join().unwrap();
        });
        assert_eq!(Mark::read(dir.path()).unwrap().wal_bytes, 0);
    }

    #[test]
    fn only_what_is_missing_is_missed() {
        let mark = Mark {
            position: 100,
            wal_bytes: 5_000,
        };
        assert_eq!(mark.missing(100, 5_000), None);
        assert_eq!(mark.missing(140, 9_000), None);
        assert!(mark.missing(99, 9_000).is_some());
        assert!(mark.missing(100, 0).is_some(), "emptied after a kill");
        let closed = Mark {
            wal_bytes: 0,
            ..mark
        };
        assert_eq!(closed.missing(100, 0), None);
    }

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Mark::read(dir.path()), None);
        let mark = Mark {
            position: 7,
            wal_bytes: 9,
        };
        mark.write(dir.path()).unwrap();
        assert_eq!(Mark::read(dir.path()), Some(mark));
        std::fs::write(dir.path().join(NAME), "position x").unwrap();
        assert_eq!(Mark::read(dir.path()), None);
    }
}
