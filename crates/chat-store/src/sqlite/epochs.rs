//! A new epoch for every log of a store that was put back from a copy.

use std::path::Path;
use std::sync::Arc;

use chat_model::Epoch;
use clock::SharedClock;
use rusqlite::{Connection, params};

use super::database::Database;
use super::folder::Folder;
use super::memory::Memory;
use super::places::newest_kept;
use super::sync::Syncs;
use super::values::epoch_value;
use super::{mark, opening};
use crate::OpenError;
use crate::expiry_clock::now;

/// Epochs that a log's list has at most; the oldest go. Each costs a restore from a copy.
const LONGEST_LIST: i64 = 64;

/// Gives every log of a folder that no service has open a new epoch, which starts after the newest
/// event that is kept. Returns the number of logs.
///
/// To be done after the folder was put back from a copy, before the service starts: what was said
/// after the copy was made is lost, and its numbers will be used again.
///
/// # Errors
/// [`OpenError::Locked`] while a service uses the folder, [`OpenError::Unusable`] if it holds no
/// store; after any error nothing has changed.
pub fn new_epoch(dir: &Path, clock: &SharedClock) -> Result<u64, OpenError> {
    let folder = Arc::new(Folder::open_existing(dir)?);
    let connection = opening::open(&folder, None)?.connection;
    let mut database = Database::new(folder.database(), connection, None, 2, Syncs::default());
    let now = now(clock);
    let logs = database
        .transaction(|connection, memory| begin_epoch(connection, memory, now))
        .map_err(|failure| failure.to_error())?;
    mark::forget(dir);
    Ok(logs)
}

/// The same inside the open transaction.
pub(super) fn begin_epoch(
    connection: &Connection,
    memory: &mut Memory,
    now: u64,
) -> rusqlite::Result<u64> {
    let epoch = Epoch::after(memory.last_epoch, now);
    let logs = connection.execute(
        concat!(
            "INSERT INTO epochs (channel_no, epoch, from_seq)
             SELECT channel_no, ?1, 1 + coalesce(",
            newest_kept!(),
            ", floor_seq) FROM channels"
        ),
        [epoch_value(epoch)],
    )?;
    connection.execute(
        "DELETE FROM epochs WHERE (channel_no, epoch) IN (
            SELECT channel_no, epoch FROM (
                SELECT channel_no, epoch,
                    row_number() OVER (PARTITION BY channel_no ORDER BY epoch DESC) AS place
                FROM epochs)
            WHERE place > ?1)",
        [LONGEST_LIST],
    )?;
    connection.execute(
        "UPDATE state SET last_epoch = ?1",
        params![epoch_value(epoch)],
    )?;
    memory.last_epoch = epoch;
    memory.logs.clear();
    Ok(u64::try_from(logs).unwrap_or(u64::MAX))
}
