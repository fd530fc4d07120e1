//! Copies of a folder's messages, made while a service uses it, and put back.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clock::SharedClock;
use rusqlite::Connection;

use super::database::Database;
use super::epochs::begin_epoch;
use super::folder::{DATABASE, Folder};
use super::read_only::look_at;
use super::schema::prepare;
use super::sync::Syncs;
use super::{mark, sync_folder};
use crate::OpenError;
use crate::expiry_clock::now;

/// Writes everything that the store of `dir` holds at this moment into one new file, which is
/// synced before this returns. Services may be using the folder: they go on meanwhile, but their
/// write-ahead log grows until the copy is complete. Blocks for as long as reading and writing all
/// of it takes; returns the size of the copy in bytes.
///
/// The file is readable by its owner only.
///
/// # Errors
/// [`OpenError::Unusable`] if the folder holds no store, [`OpenError::BadCopy`] if `file` exists
/// already or cannot be written, [`OpenError::NewerSchema`]; nothing is left of the file then.
pub fn backup(dir: &Path, file: &Path) -> Result<u64, OpenError> {
    let database = dir.join(DATABASE);
    match std::fs::metadata(&database) {
        Ok(found) if found.is_file() => {}
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            let reason = format!("it cannot be read: {error}; run this as the service's user");
            return Err(unusable(dir, reason));
        }
        _ => return Err(unusable(dir, format!("it holds no {DATABASE}"))),
    }
    let source = look_at(&database)?;
    // The copy grows under another name, so that a file of its own name is complete; one that was
    // killed leaves nothing that stands in the way of the next.
    let part = part_of(file);
    if file.exists() {
        return Err(is_there(file));
    }
    let _lock = lock(&part)?;
    // One that was made while the lock was waited for has the name by now.
    if file.exists() {
        clear(&part);
        return Err(is_there(file));
    }
    let made = write(&source, &part).and_then(|bytes| {
        give_name(&part, file)?;
        Ok(bytes)
    });
    clear(&part);
    sync_folder(folder_of(file));
    made
}

/// How far a copy to `file` is that [`backup`] is making, in bytes.
#[must_use]
pub fn backup_progress(file: &Path) -> u64 {
    // Before it has begun, and after its end, there is none.
    std::fs::metadata(part_of(file)).map_or(0, |part| part.len())
}

/// Makes `dir` the store that [`backup`] copied to `file`, and gives every log a new epoch:
/// listeners that had seen more are told what is gone, and no number means two messages. Returns
/// the number of logs.
///
/// The folder must hold no store: move the old one away, and keep it until all is well.
///
/// # Errors
/// [`OpenError::BadCopy`] if `file` is no copy of a store, [`OpenError::Unusable`] if the folder
/// holds one, [`OpenError::Locked`] while a service uses it, [`OpenError::NewerSchema`]. The
/// folder holds no store then.
pub fn restore(file: &Path, dir: &Path, clock: &SharedClock) -> Result<u64, OpenError> {
    drop(look_at(file)?);
    let folder = Folder::open(dir)?;
    let database = folder.database();
    if database.exists() {
        return Err(unusable(
            dir,
            format!(
                "it holds a {DATABASE} already: move the folder away, and keep it until all is well"
            ),
        ));
    }
    // Under another name, which no service opens: the store appears with its new epoch, or not.
    let part = part_of(&database);
    clear(&part);
    let built = build(file, &part, clock, &mut |_| ());
    let put_back = built.and_then(|logs| {
        // A write-ahead log that was left here is not this store's.
        clear_side_files(&database);
        mark::forget(dir);
        std::fs::rename(&part, &database).map_err(|error| unusable(dir, error.to_string()))?;
        Ok(logs)
    });
    clear(&part);
    sync_folder(dir);
    put_back
}

/// What [`build`] has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Built {
    Copied,
    NewEpoch,
    Synced,
}

/// Makes a complete store of a copy, synced and in one file. Says how far it is.
fn build(
    file: &Path,
    part: &Path,
    clock: &SharedClock,
    reached: &mut dyn FnMut(Built),
) -> Result<u64, OpenError> {
    let dir = folder_of(part);
    let failed = |error: &dyn std::fmt::Display| unusable(dir, error.to_string());
    std::fs::copy(file, part).map_err(|error| failed(&error))?;
    reached(Built::Copied);
    let connection = prepare(part, None)?;
    let mut opened = Database::new(part.to_owned(), connection, None, 2, Syncs::default());
    let logs = opened
        .transaction(|connection, memory| begin_epoch(connection, memory, now(clock)))
        .map_err(|failure| failure.to_error())?;
    reached(Built::NewEpoch);
    // The new epoch moves from the write-ahead log into the file that is renamed.
    let folded = opened.direct(|connection| {
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
    });
    let blocked: i64 = folded.map_err(|error| failed(&error))?.unwrap_or(1);
    if blocked != 0 {
        return Err(failed(&"the new epoch could not be written into its file"));
    }
    drop(opened);
    let synced = File::open(part).and_then(|file| file.sync_all());
    synced.map_err(|error| failed(&error))?;
    reached(Built::Synced);
    Ok(logs)
}

fn write(source: &Connection, part: &Path) -> Result<u64, OpenError> {
    let name = part
        .to_str()
        .ok_or_else(|| bad(part, &"its name must be UTF-8"))?;
    source
        .execute("VACUUM INTO ?1", [name])
        .map_err(|error| bad(part, &error))?;
    let synced = File::open(part).and_then(|file| {
        file.sync_all()?;
        file.metadata()
    });
    synced
        .map(|file| file.len())
        .map_err(|error| bad(part, &error))
}

/// Removes what grows here, whole or half.
fn clear(part: &Path) {
    remove(part);
    clear_side_files(part);
}

/// Removes what SQLite keeps beside a database.
fn clear_side_files(database: &Path) {
    for suffix in ["-wal", "-shm", "-journal"] {
        let mut name = database.as_os_str().to_owned();
        name.push(suffix);
        remove(Path::new(&name));
    }
}

fn folder_of(file: &Path) -> &Path {
    let parent = file.parent().unwrap_or(Path::new(""));
    if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    }
}

fn remove(file: &Path) {
    if let Err(error) = std::fs::remove_file(file)
        && error.kind() != ErrorKind::NotFound
    {
        tracing::warn!(%error, file = %file.display(), "an incomplete copy is left");
    }
}

/// Where the copy grows: a file of the final name is complete.
fn part_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

/// Makes the file that a copy grows in, empty, and holds it as long as this process lives: what is
/// left of one that was killed is nobody's.
fn lock(part: &Path) -> Result<File, OpenError> {
    loop {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(part).map_err(|error| bad(part, &error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(bad(part, &"another backup is writing it"));
            }
            Err(TryLockError::Error(error)) => return Err(bad(part, &error)),
        }
        // Between opening and locking, another backup may have made this very file its copy and
        // given it its name.
        if is_still(&file, part) {
            file.set_len(0).map_err(|error| bad(part, &error))?;
            clear_side_files(part);
            return Ok(file);
        }
    }
}

/// Whether a path leads to an open file.
fn is_still(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let same = |file: std::fs::Metadata| {
        std::fs::metadata(path).is_ok_and(|at| (at.dev(), at.ino()) == (file.dev(), file.ino()))
    };
    file.metadata().is_ok_and(same)
}

/// Gives a complete copy its name.
fn give_name(part: &Path, file: &Path) -> Result<(), OpenError> {
    // Unlike a rename, a link leaves alone what was made there in the meantime.
    match std::fs::hard_link(part, file) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(is_there(file)),
        // Not every file system has links.
        Err(_) => std::fs::rename(part, file).map_err(|error| bad(file, &error)),
    }
}

fn is_there(file: &Path) -> OpenError {
    bad(file, &"is there already: choose another name")
}

fn bad(file: &Path, reason: &dyn std::fmt::Display) -> OpenError {
    OpenError::BadCopy {
        file: file.to_owned(),
        reason: reason.to_string(),
    }
}

fn unusable(dir: &Path, reason: String) -> OpenError {
    OpenError::Unusable {
        dir: dir.to_owned(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SqliteOptions, SqliteStore};
    use clock::SystemClock;

    /// A folder as a process would leave it that is killed at this moment.
    fn killed(dir: &Path) -> tempfile::TempDir {
        let left = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), left.path().join(entry.file_name())).unwrap();
        }
        left
    }

    #[test]
    fn a_restore_that_is_killed_leaves_no_store_and_can_be_done_again() {
        let clock = SystemClock::shared();
        let old = tempfile::tempdir().unwrap();
        drop(SqliteStore::open(&SqliteOptions::new(old.path(), clock.clone())).unwrap());
        let copy = old.path().join("copy");
        backup(old.path(), &copy).unwrap();

        let dir = tempfile::tempdir().unwrap();
        let part = part_of(&dir.path().join(DATABASE));
        let mut moments = Vec::new();
        let mut left = Vec::new();
        build(&copy, &part, &clock, &mut |moment| {
            moments.push(moment);
            left.push(killed(dir.path()));
        })
        .unwrap();
        assert_eq!(moments, [Built::Copied, Built::NewEpoch, Built::Synced]);
        for (moment, left) in moments.iter().zip(&left) {
            let store = left.path().join(DATABASE);
            assert!(!store.exists(), "{moment:?}: it would be used as one");
            restore(&copy, left.path(), &clock).unwrap();
            let names = std::fs::read_dir(left.path()).unwrap();
            let part = names.map(|entry| entry.unwrap().file_name());
            let part = part.filter(|name| name.to_string_lossy().contains("part"));
            assert_eq!(part.count(), 0, "{moment:?}");
            assert!(store.exists());
        }
        // All that counts is in the file that is renamed.
        let alone = tempfile::tempdir().unwrap();
        let file = alone.path().join(DATABASE);
        std::fs::copy(&part, &file).unwrap();
        let count = |file: &Path| -> i64 {
            let database = Connection::open(file).unwrap();
            let sql = "SELECT last_epoch FROM state";
            database.query_row(sql, [], |row| row.get(0)).unwrap()
        };
        assert!(count(&file) > count(&copy), "it has its new epoch");
    }

    #[test]
    fn what_a_killed_backup_left_blocks_nobody() {
        let clock = SystemClock::shared();
        let dir = tempfile::tempdir().unwrap();
        drop(SqliteStore::open(&SqliteOptions::new(dir.path(), clock)).unwrap());
        let copy = dir.path().join("copy");
        std::fs::write(part_of(&copy), "half a copy").unwrap();
        std::fs::write(dir.path().join("copy.part-journal"), "its journal").unwrap();
        backup(dir.path(), &copy).unwrap();
        look_at(&copy).unwrap();
        assert!(!part_of(&copy).exists());
        assert!(!dir.path().join("copy.part-journal").exists());
        // A copy that was finished between another's opening and locking is not its to write.
        let half = part_of(&dir.path().join("third"));
        let opened = lock(&half).unwrap();
        assert!(is_still(&opened, &half));
        std::fs::rename(&half, dir.path().join("third")).unwrap();
        assert!(!is_still(&opened, &half));
        // One at a time writes there.
        let other = dir.path().join("other");
        let held = lock(&part_of(&other)).unwrap();
        let refused = backup(dir.path(), &other).unwrap_err();
        assert!(refused.to_string().contains("another backup"), "{refused}");
        drop(held);
        backup(dir.path(), &other).unwrap();
    }
}
