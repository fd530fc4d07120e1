//! Moving committed pages from the write-ahead log into the database, on a thread of its own so
//! that posts do not wait for it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};

use super::schema::{BUSY_TIMEOUT, Role, connect};
use super::shared::{Shared, spawn};
use super::sync::Syncs;
use crate::StoreError;
use crate::alarm::Alarm;

/// Size of the write-ahead log above which the writer stops for a moment to let it begin anew.
/// A quiet moment, without which it only grows, comes long before in any ordinary use.
const LARGEST_LOG: u64 = 64 << 20;
/// Size at which the writer stops even if little of the log has been moved yet: the thread here
/// cannot keep up with it, since the disk is slow or a reader stands in the way.
pub(super) const TOO_LARGE_LOG: u64 = 4 * LARGEST_LOG;
/// How long the writer waits for readers then.
const PATIENCE: Duration = Duration::from_secs(1);

/// The handle of the thread. It ends when the handle is dropped.
pub(super) struct Checkpointer {
    wishes: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl Checkpointer {
    pub(super) fn start(
        path: PathBuf,
        shared: Arc<Shared>,
        syncs: Syncs,
        alarm: &Alarm,
    ) -> Result<Self, StoreError> {
        let (wishes, received) = sync_channel(1);
        let thread = spawn("store-checkpoint", alarm, move || {
            run(&path, &shared, &syncs, &received);
        })?;
        Ok(Self { wishes, thread })
    }

    /// Asks for a checkpoint; one that waits already is enough.
    pub(super) fn ask(&self) {
        match self.wishes.try_send(()) {
            Ok(()) | Err(TrySendError::Full(_)) => {}
            Err(TrySendError::Disconnected(_)) => {
                tracing::error!("the store's checkpoint thread is gone");
            }
        }
    }

    pub(super) fn stop(self) {
        drop(self.wishes);
        if self.thread.join().is_err() {
            tracing::error!("the store's checkpoint thread panicked");
        }
    }
}

fn run(path: &std::path::Path, shared: &Shared, syncs: &Syncs, wishes: &Receiver<()>) {
    let mut connection = None;
    let mut failing = false;
    for () in wishes {
        let done = syncs.check();
        match done.and_then(|()| checkpoint(path, &mut connection, shared)) {
            Ok(()) => failing = false,
            Err(error) => {
                syncs.judge(&error);
                if error.sqlite_error_code() == Some(ErrorCode::DiskFull) {
                    shared.wish_room();
                }
                // A full or broken disk says so to every post already: once is enough here.
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "checkpoint failed");
                }
                connection = None;
            }
        }
    }
}

fn checkpoint(
    path: &std::path::Path,
    kept: &mut Option<Connection>,
    shared: &Shared,
) -> rusqlite::Result<()> {
    let connection = match kept {
        Some(connection) => connection,
        None => kept.insert(connect(path, Role::Checkpoint)?),
    };
    let (_, pages) = pragma(connection, "PRAGMA wal_checkpoint(PASSIVE)")?;
    let page: u64 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
    if pages.saturating_mul(page) > LARGEST_LOG {
        // Only a moment without commits lets the log begin anew, and a busy writer leaves none
        // for a lock to be had. It has little left to do itself right after this.
        shared.wish_empty_log();
    }
    Ok(())
}

/// What becomes of the log's room when it begins anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// The file keeps its size unless that is too large: commits that overwrite it change no inode
    /// and allocate no blocks.
    Kept,
    /// The disk has it back.
    GivenBack,
}

/// Lets the log begin anew, on the writer's own connection. Posts wait.
pub(super) fn empty_log(
    connection: &Connection,
    shared: &Shared,
    room: Room,
) -> rusqlite::Result<()> {
    connection.busy_timeout(PATIENCE)?;
    let truncate = || pragma(connection, "PRAGMA wal_checkpoint(TRUNCATE)");
    let truncated = (room == Room::GivenBack || shared.is_log_too_large())
        .then(|| shared.cutting_log(truncate))
        .flatten();
    let emptied = truncated.unwrap_or_else(|| pragma(connection, "PRAGMA wal_checkpoint(RESTART)"));
    connection.busy_timeout(BUSY_TIMEOUT)?;
    if emptied?.0 {
        shared.count_blocked_checkpoint();
    }
    Ok(())
}

/// Whether somebody stood in the way, and the pages in the log.
fn pragma(connection: &Connection, sql: &str) -> rusqlite::Result<(bool, u64)> {
    connection.query_row(sql, [], |row| {
        let pages: i64 = row.get(1)?;
        Ok((
            row.get::<_, i64>(0)? != 0,
            // -1 when there is no log.
            u64::try_from(pages).unwrap_or(0),
        ))
    })
}
