//! What the writer remembers between transactions, so that it need not ask for every message.

use std::collections::HashMap;
use std::ops::Range;

use chat_model::{ChannelId, Epoch};
use rusqlite::{Connection, OptionalExtension, params};

use super::failures::is_corruption;
use super::values::stored_epoch;
use crate::retention::EVENT_BYTES;

/// Damaged events at the end of a log behind which a good one is looked for: more than a page holds.
const MOST_DAMAGED: u64 = 200;

/// Entries at which the small table of places is emptied: three or four pages. One move takes a
/// millisecond or two.
pub(super) const MOST_NEW: u64 = 1_024;

/// A copy of what the database says. It changes inside transactions, so it is thrown away whenever
/// one of them fails.
pub(super) struct Memory {
    pub(super) logs: LogCache,
    /// Highest position ever handed out, also if retention has removed it since: a position that
    /// came twice would lie below the watermark and never be published.
    pub(super) last_position: i64,
    pub(super) last_epoch: Epoch,
    /// The highest epoch of a log that was forgotten: what its channel begins again is later.
    pub(super) forgotten_epoch: Epoch,
    /// Bytes of all events that are kept, each with what it takes besides.
    pub(super) log_bytes: u64,
    /// Those of them that came since `log_bytes` was last saved.
    pub(super) unsaved_bytes: u64,
    /// The number of the next entry of `empty_channels`, and how many there are.
    pub(super) next_empty: i64,
    pub(super) empty_entries: u64,
    /// Entries of the table `new_places`, and from how many on they are moved to the rest.
    pub(super) new_places: u64,
    pub(super) settle_at: u64,
    /// Number of the oldest remembered key and of the next one.
    pub(super) keys: Range<i64>,
}

/// The state of one channel's log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Log {
    pub(super) channel_no: i64,
    pub(super) epoch: Epoch,
    pub(super) head: u64,
    /// Highest number that retention removed.
    pub(super) floor: u64,
    /// When the newest event was stored, in milliseconds since 1970.
    pub(super) at: u64,
    /// Bytes of all events that the log ever had.
    pub(super) bytes: u64,
    /// Those of them that retention removed.
    pub(super) floor_bytes: u64,
}

impl Log {
    /// Bytes of the events that are kept.
    pub(super) fn kept_bytes(&self) -> u64 {
        self.bytes.saturating_sub(self.floor_bytes)
    }
}

impl Memory {
    pub(super) fn load(connection: &Connection, cached_channels: usize) -> rusqlite::Result<Self> {
        let (kept, last_epoch, forgotten_epoch): (i64, i64, i64) = connection.query_row(
            "SELECT max(last_position, published_to), last_epoch, forgotten_epoch FROM state",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )?;
        let (counted_to, counted): (i64, i64) =
            connection.query_row("SELECT last_position, log_bytes FROM state", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        // Not the oldest position, whose page may be lost.
        let newest: Option<i64> =
            connection.query_row("SELECT max(pos) FROM log", [], |row| row.get(0))?;
        // A store of the time before they were counted has them counted now.
        let (counted_to, counted) = match u64::try_from(counted) {
            Ok(counted) => (counted_to, counted),
            Err(_not_yet) => (0, 0),
        };
        let not_counted = counted_to + 1..newest.unwrap_or(0) + 1;
        let unsaved_bytes = bytes_of(connection, not_counted)?;
        let new_places =
            connection.query_row("SELECT count(*) FROM new_places", [], |row| row.get(0))?;
        let last_key: Option<i64> =
            connection.query_row("SELECT max(n) FROM sender_keys", [], |row| row.get(0))?;
        let next_key = last_key.unwrap_or(0) + 1;
        let (last_empty, empty_entries): (Option<i64>, u64) =
            connection.query_row("SELECT max(n), count(*) FROM empty_channels", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        // What is missing in an empty table counts as what comes before the first.
        Ok(Self {
            logs: LogCache::new(cached_channels),
            last_position: kept.max(newest.unwrap_or(0)),
            last_epoch: stored_epoch(1, last_epoch)?,
            forgotten_epoch: stored_epoch(2, forgotten_epoch)?,
            log_bytes: counted + unsaved_bytes,
            unsaved_bytes,
            next_empty: last_empty.unwrap_or(0) + 1,
            empty_entries,
            new_places,
            settle_at: MOST_NEW,
            keys: oldest_key(connection, next_key)?..next_key,
        })
    }

    /// The log of a channel; `None` if it has none.
    pub(super) fn log(
        &mut self,
        connection: &Connection,
        channel: ChannelId,
    ) -> rusqlite::Result<Option<Log>> {
        if let Some(log) = self.logs.find(channel) {
            return Ok(Some(log));
        }
        let log = load_log(connection, channel)?;
        if let Some(log) = log {
            self.logs.put(channel, log);
        }
        Ok(log)
    }
}

/// The number of the oldest key that is remembered and can be read; `next` if there is none.
fn oldest_key(connection: &Connection, next: i64) -> rusqlite::Result<i64> {
    let mut oldest = connection.prepare_cached("SELECT min(n) FROM sender_keys WHERE n >= ?1")?;
    let mut from = |first: i64| -> rusqlite::Result<i64> {
        let found: Option<i64> = oldest.query_row([first], |row| row.get(0))?;
        Ok(found.unwrap_or(next))
    };
    let (mut lost, mut found) = match from(1) {
        Err(error) if is_corruption(&error) => (1, next),
        found => return found,
    };
    // Behind the pages that are lost.
    while found - lost > 1 {
        let middle = lost + (found - lost) / 2;
        match from(middle) {
            Ok(_) => found = middle,
            Err(error) if is_corruption(&error) => lost = middle,
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Bytes of the events at these positions. Where they cannot be read, those that can be count.
fn bytes_of(connection: &Connection, positions: Range<i64>) -> rusqlite::Result<u64> {
    if positions.is_empty() {
        return Ok(0);
    }
    let bytes = connection
        .prepare_cached(
            "SELECT coalesce(sum(length(event) + ?3), 0) FROM log WHERE pos >= ?1 AND pos < ?2",
        )?
        .query_row(
            params![positions.start, positions.end, EVENT_BYTES],
            |row| row.get(0),
        );
    match bytes {
        Err(error) if is_corruption(&error) => {
            let (start, end) = (positions.start, positions.end);
            if end - start == 1 {
                return Ok(0);
            }
            let middle = start + (end - start) / 2;
            Ok(bytes_of(connection, start..middle)? + bytes_of(connection, middle..end)?)
        }
        bytes => bytes,
    }
}

/// Writes down how large the log is now, and up to which position that is known.
pub(super) fn save_size(connection: &Connection, memory: &mut Memory) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE state SET last_position = max(last_position, ?1), log_bytes = ?2")?
        .execute(params![memory.last_position, memory.log_bytes])?;
    memory.unsaved_bytes = 0;
    Ok(())
}

/// A channel's log as the database has it.
pub(super) fn load_log(
    connection: &Connection,
    channel: ChannelId,
) -> rusqlite::Result<Option<Log>> {
    let log = connection
        .prepare_cached(
            "SELECT channel_no, floor_seq, floor_at, floor_bytes,
                (SELECT max(epoch) FROM epochs e WHERE e.channel_no = c.channel_no)
             FROM channels c WHERE uuid = ?1",
        )?
        .query_row([channel.uuid().as_bytes()], |row| {
            Ok(Log {
                channel_no: row.get(0)?,
                head: row.get(1)?,
                floor: row.get(1)?,
                at: row.get(2)?,
                bytes: row.get(3)?,
                floor_bytes: row.get(3)?,
                epoch: stored_epoch(4, row.get(4)?)?,
            })
        })
        .optional()?;
    let Some(mut log) = log else { return Ok(None) };
    // What is new in a channel comes after all the rest of it.
    for sql in [
        "SELECT seq, pos FROM new_places WHERE channel_no = ?1 ORDER BY seq DESC LIMIT 1",
        "SELECT seq, pos FROM places WHERE channel_no = ?1 ORDER BY seq DESC LIMIT 1",
    ] {
        let newest = connection
            .prepare_cached(sql)?
            .query_row([log.channel_no], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        if let Some((head, pos)) = newest {
            log.head = head;
            let found = match found_at(connection, pos)? {
                None => found_before(connection, log.channel_no, head)?,
                found => found,
            };
            // Where none can be read, the time of the newest is not known, nor what all take.
            (log.at, log.bytes) = found.unwrap_or((log.at, log.bytes));
            break;
        }
    }
    Ok(Some(log))
}

/// The same of the newest event before one that is damaged, with what each in between takes at least.
fn found_before(
    connection: &Connection,
    channel_no: i64,
    seq: u64,
) -> rusqlite::Result<Option<(u64, u64)>> {
    let mut before = connection.prepare_cached(
        "SELECT pos FROM (
            SELECT seq, pos FROM new_places WHERE channel_no = ?1 AND seq < ?2
            UNION ALL SELECT seq, pos FROM places WHERE channel_no = ?1 AND seq < ?2)
         ORDER BY seq DESC LIMIT ?3",
    )?;
    let mut rows = before.query(params![channel_no, seq, MOST_DAMAGED])?;
    let mut between = EVENT_BYTES;
    while let Some(row) = rows.next()? {
        if let Some((at, bytes)) = found_at(connection, row.get(0)?)? {
            return Ok(Some((at, bytes + between)));
        }
        between += EVENT_BYTES;
    }
    Ok(None)
}

/// When the event at a position was stored, and how many bytes its channel had with it; `None` if
/// that cannot be read.
fn found_at(connection: &Connection, pos: i64) -> rusqlite::Result<Option<(u64, u64)>> {
    let found = connection
        .prepare_cached("SELECT at, bytes_to FROM log WHERE pos = ?1")?
        .query_row([pos], |row| Ok(row.get(0).ok().zip(row.get(1).ok())))
        .optional();
    match found {
        Err(error) if is_corruption(&error) => Ok(None),
        found => Ok(found?.flatten()),
    }
}

/// Two generations of logs: when the younger is full, the older is forgotten. What is used at
/// least once a generation stays.
pub(super) struct LogCache {
    young: HashMap<ChannelId, Log>,
    old: HashMap<ChannelId, Log>,
    generation: usize,
}

impl LogCache {
    fn new(capacity: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            generation: (capacity / 2).max(1),
        }
    }

    pub(super) fn find(&mut self, channel: ChannelId) -> Option<Log> {
        if let Some(log) = self.young.get(&channel) {
            return Some(*log);
        }
        let log = *self.old.get(&channel)?;
        self.put(channel, log);
        Some(log)
    }

    pub(super) fn put(&mut self, channel: ChannelId, log: Log) {
        if self.young.len() >= self.generation && !self.young.contains_key(&channel) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(channel, log);
    }

    /// Forgets one channel, whose log was changed by other means.
    pub(super) fn forget(&mut self, channel: ChannelId) {
        self.young.remove(&channel);
        self.old.remove(&channel);
    }

    pub(super) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(channel_no: i64) -> Log {
        Log {
            channel_no,
            epoch: Epoch::ZERO,
            head: 0,
            floor: 0,
            at: 0,
            bytes: 0,
            floor_bytes: 0,
        }
    }

    #[test]
    fn cache_is_bounded_and_keeps_what_is_used() {
        let mut cache = LogCache::new(10);
        let busy = ChannelId::from(uuid::Uuid::from_u128(0));
        cache.put(busy, log(0));
        for number in 1..1_000 {
            cache.put(uuid::Uuid::from_u128(number).into(), log(1));
            assert!(cache.find(busy).is_some(), "after {number}");
            assert!(cache.young.len() + cache.old.len() <= 10);
        }
        cache.forget(busy);
        assert!(cache.find(busy).is_none());
    }
}
