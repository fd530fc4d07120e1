//! A second place that knows how far the store has come: a small file beside the database.
//!
//! A database whose newest commits are missing (a write-ahead log cut off or removed, an older copy
//! put in its place) is a good database: nothing in it tells. The mark does. It is written at each
//! start, at each stop in good order, and every ten seconds while messages are stored; so after a
//! kill or a power cut the last ten seconds are the part of which it may not know.

use std::{
    fs::{File, read_to_string, remove_file, rename},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{folder::DATABASE, sync_folder};
use crate::StoreError;

const NAME: &str = "store.mark";
/// How often it is written while the store grows.
pub(super) const EVERY: Duration = Duration::from_secs(10);

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
        sync_folder(dir);
        Ok(())
    }

    /// Notes that the write-ahead log is whole, before it is brought into the database: whoever is
    /// stopped in between finds no log, and nothing is missing.
    pub(super) fn settle_log(self, dir: &Path, wal_bytes: u64) {
        if self.wal_bytes == 0 || wal_bytes < self.wal_bytes {
            return;
        }
        let settled = Self {
            wal_bytes: 0,
            ..self
        };
        if let Err(error) = settled.write(dir) {
            tracing::warn!(%error, dir = %dir.display(), "the store's mark could not be written");
        }
    }

    /// Refuses a folder whose database is gone: most likely a disk is not mounted, or a file was
    /// moved; to begin anew would hide that.
    ///
    /// # Errors
    /// [`StoreError::Unusable`].
    pub(super) fn expect_database(self, dir: &Path) -> Result<(), StoreError> {
        let bytes = std::fs::metadata(dir.join(DATABASE)).map_or(0, |file| file.len());
        if bytes > 0 || self.position == 0 {
            return Ok(());
        }
        Err(StoreError::Unusable {
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
    let path: PathBuf = dir.join(NAME);
    if let Err(error) = remove_file(&path)
        && error.kind() != ErrorKind::NotFound
    {
        tracing::warn!(%error, file = %path.display(), "the old mark could not be removed");
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
