//! Room on the disk that is kept for the store's own work.
//!
//! On a disk without any room the write-ahead log cannot be brought into the database, which may have
//! to grow for it, and nothing can be removed, since that is written to the log first: the store
//! could not help itself. So a file takes some room that nobody else can use, and goes when the
//! store needs it. Until it is there again, no messages are taken, which would only use up what the
//! store has left.

use std::fs::{File, remove_file};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

const NAME: &str = "store.reserve";
/// The part of a small disk that is kept at most.
const SHARE: u64 = 10;
/// A reserve of this size needs no other bound of the write-ahead log than the usual one.
const ENOUGH: u64 = 64 << 20;
/// What a store that is closed keeps for its next start, or as much of it as there is: that makes a
/// write-ahead log and the memory that SQLite's connections share.
const FOR_A_START: [u64; 3] = [1 << 20, 256 << 10, 128 << 10];
/// After an attempt to have it that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// The file, or that it is wanted.
pub(super) struct Reserve {
    file: PathBuf,
    bytes: u64,
    is_held: bool,
    failed: Option<Instant>,
}

impl Reserve {
    /// One of so many bytes, 0 for none. What a process that was killed left of it goes.
    pub(super) fn new(dir: &Path, bytes: u64) -> Self {
        let mut reserve = Self {
            file: dir.join(NAME),
            bytes: bytes.min(share_of(dir)),
            is_held: true,
            failed: None,
        };
        reserve.release();
        reserve
    }

    /// How large the write-ahead log may become, so that the room is enough to bring all of it into
    /// the database; `None` on a disk of the usual size, where the part of it that is not there yet
    /// is always much smaller.
    pub(super) fn largest_log(&self) -> Option<u64> {
        (1..ENOUGH).contains(&self.bytes).then_some(self.bytes / 2)
    }

    /// Whether the room is kept; tries to have it, unless that has just failed.
    pub(super) fn has_it(&mut self) -> bool {
        self.is_held || self.bytes == 0 || {
            let rests = self.failed.is_some_and(|failed| failed.elapsed() < PAUSE);
            !rests && self.make()
        }
    }

    /// Takes the room; whether it could be had.
    pub(super) fn make(&mut self) -> bool {
        if self.is_held || self.bytes == 0 {
            return true;
        }
        match allocate(&self.file, self.bytes) {
            Ok(()) => self.is_held = true,
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                tracing::debug!("this file system cannot keep room for the store");
                self.remove();
                self.bytes = 0;
            }
            Err(error) => {
                tracing::debug!(%error, bytes = self.bytes, "no room for the store's reserve");
                self.failed = Some(Instant::now());
                self.remove();
            }
        }
        self.is_held || self.bytes == 0
    }

    /// Gives the room up, for what the store has to do.
    pub(super) fn release(&mut self) {
        if std::mem::take(&mut self.is_held) {
            self.remove();
        }
    }

    /// Leaves some for the next start of a store that keeps so many bytes: to be called once nothing
    /// else is to be done.
    pub(super) fn leave(dir: &Path, bytes: u64) {
        let most = bytes.min(share_of(dir));
        let file = dir.join(NAME);
        for bytes in FOR_A_START.into_iter().filter(|bytes| *bytes <= most) {
            match allocate(&file, bytes) {
                Ok(()) => return,
                Err(error) => tracing::debug!(%error, bytes, "no room for the next start"),
            }
            // An empty one is of no use.
            let _gone = remove_file(&file);
        }
    }

    /// What is missing, in words.
    pub(super) fn missing(&self) -> String {
        format!(
            "the disk is full: {} MiB that are kept free for the store's own work cannot be had",
            self.bytes.div_ceil(1 << 20)
        )
    }

    fn remove(&self) {
        if let Err(error) = remove_file(&self.file)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(%error, file = %self.file.display(), "the reserve cannot be removed");
        }
    }
}

fn allocate(path: &Path, bytes: u64) -> Result<(), Errno> {
    let file =
        File::create(path).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    fallocate(&file, FallocateFlags::empty(), 0, bytes)
}

/// As much of a folder's disk as may be kept. A disk that does not tell its size is large.
fn share_of(dir: &Path) -> u64 {
    statvfs(dir).map_or(u64::MAX, |disk| disk.f_blocks * disk.f_frsize / SHARE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_taken_and_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        std::fs::write(&path, "left").unwrap();
        let mut reserve = Reserve::new(dir.path(), 1 << 20);
        assert!(!path.exists(), "what was left is given back first");
        assert!(reserve.has_it());
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 1 << 20);
        reserve.release();
        assert!(!path.exists());
        assert!(reserve.make());
        assert!(reserve.has_it());
        assert!(Reserve::new(dir.path(), 0).has_it());
    }
}
