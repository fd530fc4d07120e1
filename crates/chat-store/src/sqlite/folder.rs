//! The store's folder: it exists, can be written, and belongs to one process at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::OpenError;

/// The database inside the folder; SQLite puts `-wal` and `-shm` beside it.
pub(super) const DATABASE: &str = "store.sqlite3";
/// Held while a process uses the folder. The file stays behind; the lock on it does not.
const LOCK: &str = "store.lock";

/// A folder locked for this process until it is dropped.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    _lock: File,
}

impl Folder {
    /// Creates the folder if need be and locks it.
    pub(super) fn open(dir: &Path) -> Result<Self, OpenError> {
        std::fs::create_dir_all(dir).map_err(|error| unusable(dir, "created", &error))?;
        Self::lock(dir)
    }

    /// Locks a folder that must already hold a store.
    pub(super) fn open_existing(dir: &Path) -> Result<Self, OpenError> {
        if !dir.join(DATABASE).is_file() {
            return Err(OpenError::Unusable {
                dir: dir.to_owned(),
                reason: format!("it holds no {DATABASE}; is it the right folder?"),
            });
        }
        Self::lock(dir)
    }

    fn lock(dir: &Path) -> Result<Self, OpenError> {
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(dir.join(LOCK))
            .map_err(|error| unusable(dir, "written", &error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                dir: dir.to_owned(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(OpenError::Locked {
                dir: dir.to_owned(),
            }),
            Err(TryLockError::Error(error)) => Err(unusable(dir, "locked", &error)),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn database(&self) -> PathBuf {
        self.dir.join(DATABASE)
    }
}

fn unusable(dir: &Path, done: &str, error: &std::io::Error) -> OpenError {
    let advice = match error.kind() {
        ErrorKind::PermissionDenied => {
            let user = rustix::process::geteuid().as_raw();
            let group = rustix::process::getegid().as_raw();
            // In a container it is a folder of the host, under another name.
            format!(
                "; make it writable for this user (chown {user}:{group} {}, or the folder that is \
                 mounted there), or choose another folder",
                dir.display()
            )
        }
        ErrorKind::ReadOnlyFilesystem => "; choose another folder".to_owned(),
        ErrorKind::StorageFull => "; make room on the disk".to_owned(),
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => "; a file is in the way".to_owned(),
        _ => String::new(),
    };
    OpenError::Unusable {
        dir: dir.to_owned(),
        reason: format!("it cannot be {done}: {error}{advice}"),
    }
}
