//! Opening the database of a folder as somebody left it.
//!
//! Nothing is changed before it was looked at: what is in the write-ahead log may be all that there
//! is to mend a damaged database with, and SQLite removes the log once it has brought it in.

use std::fs::metadata;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension};

use super::check::quick_check;
use super::failures::unusable;
use super::folder::Folder;
use super::mark::Mark;
use super::schema::{Found, ready};
use super::{channel_index, wal};
use crate::OpenError;

/// A database that was opened.
pub(super) struct Opened {
    pub(super) connection: Connection,
    /// What SQLite finds wrong with it.
    pub(super) complaints: Vec<String>,
    /// What is known to be missing of it, in words.
    pub(super) missing: Option<String>,
}

/// Opens or creates the database of a folder, bringing it to today's format.
///
/// # Errors
/// [`OpenError::Unusable`], [`OpenError::NewerSchema`]. If the database is damaged too much to be
/// opened, the write-ahead log is left as it is.
pub(super) fn open(folder: &Folder, max_file_bytes: Option<u64>) -> Result<Opened, OpenError> {
    let (dir, path) = (folder.dir(), folder.database());
    // One that cannot be read was told of there, and expects nothing.
    let mark = Mark::read(dir).unwrap_or_default();
    mark.expect_database(dir)?;
    let wal_bytes = metadata(wal::path(dir)).map_or(0, |log| log.len());
    let cut_off = wal::cut_off(&wal::path(dir)).unwrap_or_else(|error| {
        tracing::warn!(%error, dir = %dir.display(), "the write-ahead log cannot be looked at");
        None
    });
    let found = Found::open(&path, max_file_bytes)?;
    let newest = newest_position(&found.connection).map_err(|error| unusable(dir, &error))?;
    let mut complaints = quick_check(&found.connection, &path);
    let missing = mark.missing(newest, wal_bytes).or_else(|| cut_off.clone());
    if wal_bytes > 0 && (missing.is_some() || !complaints.is_empty()) {
        keep_log(dir)?;
    }
    // Before the log is brought in: whoever is stopped in between finds none.
    if cut_off.is_some() {
        mark.miss_log(dir, wal_bytes);
    } else {
        mark.settle_log(dir, wal_bytes);
    }
    let mut connection = ready(found, &path)?;
    complaints.extend(channel_index::look(&mut connection));
    Ok(Opened {
        connection,
        complaints,
        missing,
    })
}

fn keep_log(dir: &Path) -> Result<(), OpenError> {
    match wal::keep(dir)? {
        Some(copy) => tracing::error!(
            copy = %copy.display(),
            "the store is damaged or lacks something: its write-ahead log is kept as it was found, \
             for whoever wants to mend it; `hark check` says how far the damage goes, `hark restore` \
             puts back a copy; remove the file when it is not needed any more"
        ),
        None => tracing::error!(
            dir = %dir.display(),
            "the store is damaged or lacks something: its write-ahead log is not kept, since there \
             are enough of earlier times; remove them when they are not needed any more"
        ),
    }
    Ok(())
}

/// The newest position that a database of any format knows.
fn newest_position(connection: &Connection) -> rusqlite::Result<u64> {
    let tables = "SELECT 1 FROM sqlite_schema WHERE name = 'state'";
    let is_store = connection.query_row(tables, [], |_| Ok(())).optional()?;
    if is_store.is_none() {
        return Ok(0);
    }
    connection.query_row(
        "SELECT max(published_to, last_position, coalesce((SELECT max(pos) FROM log), 0))
         FROM state",
        [],
        |row| row.get(0),
    )
}
