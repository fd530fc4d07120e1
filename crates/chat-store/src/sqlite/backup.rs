//! Copies of a folder's messages, made while a service uses it, and put back.

use std::{
    fs::{File, OpenOptions},
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
};

use rusqlite::{Connection, OpenFlags};
use service_kit::clock::SharedClock;

use super::{
    database::Database,
    epochs::begin_epoch,
    folder::{DATABASE, Folder},
    schema::{self, prepare},
    sync_folder,
};
use crate::{StoreError, expiry_clock::now};

/// Writes everything that the store of `dir` holds at this moment into one new file, which is
/// synced before this returns. Services may be using the folder: they go on meanwhile, but their
/// write-ahead log grows until the copy is complete. Blocks for as long as reading and writing all
/// of it takes; returns the size of the copy in bytes.
///
/// The file is readable by its owner only.
///
/// # Errors
/// [`StoreError::Unusable`] if the folder holds no store, [`StoreError::BadCopy`] if `file` exists
/// already or cannot be written, [`StoreError::NewerSchema`]; nothing is left of the file then.
pub fn backup(dir: &Path, file: &Path) -> Result<u64, StoreError> {
    let database = dir.join(DATABASE);
    if !database.is_file() {
        return Err(unusable(dir, format!("it holds no {DATABASE}")));
    }
    let source = look_at(&database)?;
    let part = part_of(file);
    create(file)?;
    let made = create(&part).and_then(|()| {
        let bytes = write(&source, &part).inspect_err(|_| remove(&part))?;
        std::fs::rename(&part, file).map_err(|error| bad(file, &error))?;
        Ok(bytes)
    });
    if made.is_err() {
        // Nobody shall take it for a copy.
        remove(file);
    }
    sync_folder(file.parent().unwrap_or(Path::new(".")));
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
/// [`StoreError::BadCopy`] if `file` is no copy of a store, [`StoreError::Unusable`] if the folder
/// holds one, [`StoreError::Locked`] while a service uses it, [`StoreError::NewerSchema`]. The
/// folder holds no store then.
pub fn restore(file: &Path, dir: &Path, clock: &SharedClock) -> Result<u64, StoreError> {
    drop(look_at(file)?);
    let folder = Arc::new(Folder::open(dir)?);
    let database = folder.database();
    if database.exists() {
        return Err(unusable(
            dir,
            format!(
                "it holds a {DATABASE} already: move the folder away, and keep it until all is well"
            ),
        ));
    }
    let put_back = put_back(file, &database, clock);
    if put_back.is_err() {
        // A store that is half put back would be used as one.
        remove(&database);
    }
    sync_folder(dir);
    put_back
}

fn put_back(file: &Path, database: &Path, clock: &SharedClock) -> Result<u64, StoreError> {
    let dir = database.parent().unwrap_or(database);
    let copied = std::fs::copy(file, database).and_then(|_| File::open(database)?.sync_all());
    copied.map_err(|error| unusable(dir, error.to_string()))?;
    let connection = prepare(database, None)?;
    let mut opened = Database::new(database.to_owned(), connection, None, 2);
    opened
        .transaction(|connection, memory| begin_epoch(connection, memory, now(clock)))
        .map_err(|failure| failure.to_error())
}

/// A connection that only reads, to what must be a store.
fn look_at(database: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(database, flags)
        .and_then(|connection| {
            connection.busy_timeout(schema::BUSY_TIMEOUT)?;
            Ok(connection)
        })
        .map_err(|error| bad(database, &error))?;
    schema::check_format(&connection, database)?;
    Ok(connection)
}

fn write(source: &Connection, part: &Path) -> Result<u64, StoreError> {
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

fn create(file: &Path) -> Result<(), StoreError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
        .open(file)
        .map(drop)
        .map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => bad(file, &"is there already: choose another name"),
            _ => bad(file, &error),
        })
}

fn bad(file: &Path, reason: &dyn std::fmt::Display) -> StoreError {
    StoreError::BadCopy {
        file: file.to_owned(),
        reason: reason.to_string(),
    }
}

fn unusable(dir: &Path, reason: String) -> StoreError {
    StoreError::Unusable {
        dir: dir.to_owned(),
        reason,
    }
}
