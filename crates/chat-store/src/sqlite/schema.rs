//! The tables, and how older data becomes like them.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::OpenError;

/// Steps from an empty file to today's format, each in one transaction; `user_version` counts
/// those done. A step that was released is never changed.
const MIGRATIONS: &[&str] = &[
    // `pos` is the order of the outbox. There is deliberately no index on the events' ids: it
    // would cost three times as much as everything else (measured once: 8-12 against 32-41 µs).
    //
    // `floor_seq` is the highest number that retention has removed: what is kept begins after it,
    // and it is the head of a log of which nothing is kept. `floor_at` is the time of that event.
    "CREATE TABLE channels (
        channel_no INTEGER PRIMARY KEY,
        uuid BLOB NOT NULL UNIQUE,
        floor_seq INTEGER NOT NULL DEFAULT 0,
        floor_at INTEGER NOT NULL DEFAULT 0
    );
    CREATE TABLE epochs (
        channel_no INTEGER NOT NULL,
        epoch INTEGER NOT NULL,
        from_seq INTEGER NOT NULL,
        PRIMARY KEY (channel_no, epoch)
    ) WITHOUT ROWID;
    CREATE TABLE log (
        pos INTEGER PRIMARY KEY,
        channel_no INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        at INTEGER NOT NULL,
        kept_at INTEGER NOT NULL,
        event BLOB NOT NULL
    );
    CREATE UNIQUE INDEX log_by_channel ON log (channel_no, seq);
    CREATE TABLE sender_keys (
        n INTEGER PRIMARY KEY,
        channel_no INTEGER NOT NULL,
        key BLOB NOT NULL,
        fingerprint BLOB NOT NULL,
        id BLOB NOT NULL,
        epoch INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        kept_at INTEGER NOT NULL
    );
    CREATE UNIQUE INDEX sender_keys_by_key ON sender_keys (channel_no, key);
    CREATE TABLE state (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        published_to INTEGER NOT NULL,
        last_position INTEGER NOT NULL,
        last_epoch INTEGER NOT NULL,
        expiry_clock INTEGER NOT NULL,
        expiry_saved_at INTEGER NOT NULL
    );
    INSERT INTO state VALUES (1, 0, 0, 0, 0, 0);
    CREATE TABLE probe (one INTEGER PRIMARY KEY CHECK (one = 1), filler BLOB NOT NULL);
    INSERT INTO probe VALUES (1, x'');",
    // Instead of an index: see `places.rs`.
    "CREATE TABLE places (
        channel_no INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        pos INTEGER NOT NULL,
        PRIMARY KEY (channel_no, seq)
    ) WITHOUT ROWID;
    CREATE TABLE new_places (
        channel_no INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        pos INTEGER NOT NULL,
        PRIMARY KEY (channel_no, seq)
    ) WITHOUT ROWID;
    INSERT INTO places SELECT channel_no, seq, pos FROM log ORDER BY channel_no, seq;
    DROP INDEX log_by_channel;",
    // `sum` is the event's checksum (`checksum.rs`), NULL where it was stored before there was one.
    "ALTER TABLE log ADD COLUMN sum INTEGER;",
    // How large the log is, and each channel in it, without a page more for a commit to write:
    // `log_bytes` counts the events up to `last_position` (-1: they are still to be counted), `bytes_to` those of an event's channel up
    // to and with it, ever, and `floor_bytes` those that retention has removed of a channel.
    //
    // `empty_channels` are those of which nothing is kept, in the order in which that came about
    // (see `forgetting.rs`); `forgotten_epoch` is the highest that any forgotten log had.
    "ALTER TABLE log ADD COLUMN bytes_to INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE channels ADD COLUMN floor_bytes INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE state ADD COLUMN log_bytes INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE state ADD COLUMN forgotten_epoch INTEGER NOT NULL DEFAULT 0;
    UPDATE state SET
        last_position = max(last_position, (SELECT coalesce(max(pos), 0) FROM log)),
        log_bytes = -1;
    CREATE TABLE empty_channels (
        n INTEGER PRIMARY KEY,
        channel_no INTEGER NOT NULL,
        floor_seq INTEGER NOT NULL,
        since INTEGER NOT NULL
    );
    INSERT INTO empty_channels (channel_no, floor_seq, since)
        SELECT channel_no, floor_seq, (SELECT expiry_clock FROM state) FROM channels
        WHERE NOT EXISTS (SELECT 1 FROM places WHERE places.channel_no = channels.channel_no)
        AND NOT EXISTS (SELECT 1 FROM new_places new WHERE new.channel_no = channels.channel_no);",
];

/// "Hark" in ASCII, so that `file` and a careful operator can tell what it is.
const APPLICATION_ID: i64 = 0x4861_726b;

/// The write-ahead log stays when the last connection goes.
const KEEP_LOG: DbConfig = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;

/// How long a connection waits for another's lock. The writer meets only the last moments of a
/// checkpoint there.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Write { max_file_bytes: Option<u64> },
    Read,
    Checkpoint,
}

/// Opens a connection to a store that exists and has today's format.
pub(super) fn connect(path: &Path, role: Role) -> rusqlite::Result<Connection> {
    open(path, role, OpenFlags::empty())
}

fn open(path: &Path, role: Role, more: OpenFlags) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | more;
    let connection = Connection::open_with_flags(path, flags)?;
    // Before anything is read, which fails in a damaged database.
    if more.contains(OpenFlags::SQLITE_OPEN_CREATE) {
        connection.set_db_config(KEEP_LOG, true)?;
    }
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(64);
    match role {
        Role::Write { max_file_bytes } => {
            // FULL: a commit returns after the write-ahead log is on the disk.
            // 16 MiB of pages, so that the index of many channels stays in memory.
            connection.execute_batch(
                "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -16384;",
            )?;
            if let Some(bytes) = max_file_bytes {
                let page: u64 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
                let pages = i64::try_from((bytes / page).max(1)).unwrap_or(i64::MAX);
                connection.query_row(
                    &format!("PRAGMA max_page_count = {pages}"),
                    [],
                    |_| Ok(()),
                )?;
            }
        }
        Role::Read => {
            connection.execute_batch("PRAGMA query_only = 1; PRAGMA cache_size = -4096;")?;
        }
        // A checkpoint that cannot have the lock at once tries again later.
        Role::Checkpoint => {
            connection.execute_batch("PRAGMA synchronous = FULL;")?;
            connection.busy_timeout(Duration::from_millis(200))?;
        }
    }
    Ok(connection)
}

/// Opens or creates the database, bringing it to today's format.
pub(super) fn prepare(path: &Path, max_file_bytes: Option<u64>) -> Result<Connection, OpenError> {
    ready(Found::open(path, max_file_bytes)?, path)
}

/// A database that was opened, and of which nothing was changed. When it goes, its write-ahead log
/// stays.
pub(super) struct Found {
    pub(super) connection: Connection,
    version: i64,
}

impl Found {
    /// Opens or creates the database.
    pub(super) fn open(path: &Path, max_file_bytes: Option<u64>) -> Result<Self, OpenError> {
        let unusable = |error: rusqlite::Error| unusable(path, &error);
        let role = Role::Write { max_file_bytes };
        let connection = open(path, role, OpenFlags::SQLITE_OPEN_CREATE).map_err(unusable)?;
        connection.set_db_config(KEEP_LOG, true).map_err(unusable)?;
        let version = user_version(&connection).map_err(unusable)?;
        let known = MIGRATIONS.len() as i64;
        if version > known {
            return Err(OpenError::NewerSchema {
                path: path.to_owned(),
                found: version,
                known,
            });
        }
        if version <= 0 {
            let tables: i64 = connection
                .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
                .map_err(unusable)?;
            if tables != 0 {
                return Err(OpenError::Unusable {
                    dir: path.parent().unwrap_or(path).to_owned(),
                    reason: format!("{} belongs to another program", path.display()),
                });
            }
        }
        Ok(Self {
            connection,
            version,
        })
    }
}

/// Brings what is in the write-ahead log into the database, and the database to today's format.
pub(super) fn ready(found: Found, path: &Path) -> Result<Connection, OpenError> {
    let Found {
        mut connection,
        version,
    } = found;
    let unusable = |error: rusqlite::Error| unusable(path, &error);
    if version <= 0 {
        // Only a file without tables takes this one; WAL mode is kept in the file as well.
        connection
            .execute_batch("PRAGMA auto_vacuum = INCREMENTAL;")
            .map_err(unusable)?;
    }
    let mode: String = connection
        .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
        .map_err(unusable)?;
    if mode != "wal" {
        return Err(OpenError::Unusable {
            dir: path.parent().unwrap_or(path).to_owned(),
            reason: format!("its file system cannot hold a write-ahead log (mode {mode})"),
        });
    }
    if !fold(&connection).map_err(unusable)? {
        write_log_again(path).map_err(|error| OpenError::Unusable {
            dir: path.parent().unwrap_or(path).to_owned(),
            reason: format!("its write-ahead log could not be synced: {error}"),
        })?;
    }
    migrate(&mut connection, version).map_err(unusable)?;
    connection
        .set_db_config(KEEP_LOG, false)
        .map_err(unusable)?;
    Ok(connection)
}

fn unusable(path: &Path, error: &rusqlite::Error) -> OpenError {
    super::failures::unusable(path.parent().unwrap_or(path), error)
}

/// Writes what a process left in the write-ahead log into the database, and lets the log begin anew.
///
/// A process that ended because an fsync had failed may have left there what the system reads from
/// memory and the disk never got. What is written here is synced, or the store is not opened. On a
/// disk that is full the log stays as it is: the store can be read. False if it could not be moved,
/// since another process, such as a backup, reads an earlier state.
fn fold(connection: &Connection) -> rusqlite::Result<bool> {
    let folded = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
        let (blocked, pages, moved): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(blocked == 0 || moved >= pages)
    });
    match folded {
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) => {
            tracing::warn!(%error, "the write-ahead log could not be brought into the database");
            Ok(true)
        }
        folded => folded,
    }
}

/// Writes the same bytes to where they are in the write-ahead log, and syncs them: to whoever reads
/// there nothing changes, and what the disk may have missed gets there.
fn write_log_again(database: &Path) -> std::io::Result<()> {
    let mut path = database.as_os_str().to_owned();
    path.push("-wal");
    let mut log = File::options().read(true).write(true).open(path)?;
    let mut part = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        log.seek(SeekFrom::Start(at))?;
        let bytes = log.read(&mut part)?;
        if bytes == 0 {
            return log.sync_all();
        }
        log.seek(SeekFrom::Start(at))?;
        log.write_all(&part[..bytes])?;
        at += bytes as u64;
    }
}

/// Whether the store is in the format of this program.
pub(super) fn is_current(connection: &Connection) -> bool {
    user_version(connection).is_ok_and(|found| found == MIGRATIONS.len() as i64)
}

/// Refuses what is no store, or one of a newer program; `path` is for the words.
pub(super) fn check_format(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let bad = |reason: String| OpenError::BadCopy {
        file: path.to_owned(),
        reason,
    };
    let id = connection.query_row("PRAGMA application_id", [], |row| row.get(0));
    let id: i64 = id.map_err(|error| bad(format!("{error}; is it a store of Hark?")))?;
    let found = user_version(connection).map_err(|error| bad(error.to_string()))?;
    let known = MIGRATIONS.len() as i64;
    if id != APPLICATION_ID || found < 1 {
        return Err(bad("it is no store of Hark".to_owned()));
    }
    if found > known {
        return Err(OpenError::NewerSchema {
            path: path.to_owned(),
            found,
            known,
        });
    }
    Ok(())
}

fn migrate(connection: &mut Connection, from: i64) -> rusqlite::Result<()> {
    for (done, step) in MIGRATIONS
        .iter()
        .enumerate()
        // A negative version stands in a file without tables: it takes all steps.
        .skip(usize::try_from(from).unwrap_or(0))
    {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        transaction.execute_batch(&format!(
            "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {};",
            done + 1
        ))?;
        transaction.commit()?;
    }
    Ok(())
}

fn user_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_that_a_reader_keeps_from_being_moved_is_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hark.db");
        let writer = prepare(&path, None).unwrap();
        writer
            .execute("UPDATE state SET published_to = 1", [])
            .unwrap();
        let reader = connect(&path, Role::Read).unwrap();
        reader.execute_batch("BEGIN; SELECT * FROM state").unwrap();
        writer
            .execute("UPDATE state SET published_to = 2", [])
            .unwrap();
        writer.busy_timeout(Duration::ZERO).unwrap();
        assert!(!fold(&writer).unwrap(), "the reader is in the way");
        let log = dir.path().join("hark.db-wal");
        let before = std::fs::read(&log).unwrap();
        assert!(!before.is_empty());
        write_log_again(&path).unwrap();
        assert_eq!(std::fs::read(&log).unwrap(), before);
        reader.execute_batch("ROLLBACK").unwrap();
        assert!(fold(&writer).unwrap());
        assert_eq!(std::fs::metadata(&log).unwrap().len(), 0);
        let kept: i64 = writer
            .query_row("SELECT published_to FROM state", [], |row| row.get(0))
            .unwrap();
        assert_eq!(kept, 2);
    }

    #[test]
    fn events_of_the_first_format_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("old.db");
        let old = Connection::open(&path).unwrap();
        old.execute_batch(MIGRATIONS[0]).unwrap();
        old.execute_batch(
            "INSERT INTO channels (channel_no, uuid) VALUES (1, x'01'), (2, x'02');
             INSERT INTO log VALUES
                (7, 2, 1, 0, 0, x''), (8, 1, 5, 0, 0, x''), (9, 2, 2, 0, 0, x'');
             PRAGMA user_version = 1;",
        )
        .unwrap();
        drop(old);
        let today = prepare(&path, None).unwrap();
        assert_eq!(user_version(&today).unwrap(), MIGRATIONS.len() as i64);
        let places: String = today
            .query_row(
                "SELECT group_concat(channel_no || ' ' || seq || ' ' || pos) FROM places",
                [],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(places, "1 5 8,2 1 7,2 2 9");
    }
}
