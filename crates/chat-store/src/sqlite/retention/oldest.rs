//! The start of the log, whatever the channels: what has expired, and what there is no room for.

use std::collections::HashMap;

use chat_model::ChannelId;
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use super::around::Leave;
use super::floors::{Floor, raise_floors};
use super::{Progress, STEP_BYTES, STEP_EVENTS, Sweeper};
use crate::expiry_clock::milliseconds;
use crate::retention::{EARLY, EVENT_BYTES};
use crate::sqlite::failures::{is_corruption, is_damage};
use crate::sqlite::memory::Memory;

/// What was found at the start of the log.
pub(super) enum Oldest {
    None,
    /// Damage, which was passed.
    Passed,
    Some(Chunk),
}

/// Events that are to go.
pub(super) struct Chunk {
    /// They begin at this position or later,
    first: i64,
    /// and end with this one.
    pub(super) last: i64,
    removed: u64,
    early: u64,
    bytes: u64,
    floors: HashMap<i64, Floor>,
}

/// SQL for what is to be known of an event, whose position comes first.
macro_rules! rows {
    () => {
        "SELECT pos, channel_no, seq, at, kept_at, length(event), bytes_to FROM log"
    };
}

/// An event, as far as it can be read.
struct Found {
    pos: i64,
    channel_no: Option<i64>,
    seq: Option<u64>,
    at: Option<u64>,
    kept_at: Option<u64>,
    size: u64,
    bytes_to: Option<u64>,
}

/// The channel of an event.
#[derive(Clone, Copy)]
enum Entry {
    Known {
        channel: ChannelId,
        floor: u64,
    },
    /// It was forgotten.
    None,
    /// It cannot be read.
    Damaged,
}

impl Sweeper {
    /// Finds events to remove at the start of the log: the expired ones, and as many as the size
    /// asks.
    pub(super) fn oldest(
        &mut self,
        connection: &Connection,
        memory: &Memory,
        expiry: u64,
    ) -> rusqlite::Result<Oldest> {
        let mut chunk = Chunk {
            first: self.around.oldest + 1,
            last: 0,
            removed: 0,
            early: 0,
            bytes: 0,
            floors: HashMap::new(),
        };
        let mut statement = connection
            .prepare_cached(concat!(rows!(), " WHERE pos >= ?1 ORDER BY pos LIMIT ?2"))?;
        let mut rows = statement.query(params![chunk.first, STEP_EVENTS])?;
        let cutoff = expiry.checked_sub(self.max_age);
        let mut entries = HashMap::new();
        let mut kept_at = 0;
        let lost = loop {
            let found = match rows.next() {
                Ok(Some(row)) => Found::read(row)?,
                Ok(None) => break None,
                Err(error) if is_corruption(&error) => break Some(error),
                Err(error) => return Err(error),
            };
            // One that cannot be right is taken for that of the event before.
            kept_at = found.kept_at.filter(|&at| at <= expiry).unwrap_or(kept_at);
            let entry = match found.channel_no {
                None => Entry::None,
                Some(channel_no) => match entries.get(&channel_no) {
                    Some(&known) => known,
                    None => {
                        let entry = Entry::read(connection, channel_no)?;
                        entries.insert(channel_no, entry);
                        entry
                    }
                },
            };
            if !entry.has_removed(found.seq) {
                let left = memory.log_bytes.saturating_sub(chunk.bytes);
                let has_expired = cutoff.is_some_and(|cutoff| kept_at <= cutoff);
                if !has_expired {
                    if left <= self.max_bytes {
                        break None;
                    }
                    chunk.early += u64::from(kept_at + milliseconds(EARLY) > expiry);
                }
                chunk.bytes += found.size;
                chunk.removed += 1;
            }
            chunk.take(&found, entry);
            if chunk.bytes > STEP_BYTES {
                break None;
            }
        };
        drop(rows);
        match lost {
            Some(error) if chunk.last == 0 => {
                self.around.note("table log", &error);
                self.pass_damage(connection, memory)
            }
            _ if chunk.last == 0 => Ok(Oldest::None),
            _ => Ok(Oldest::Some(chunk)),
        }
    }

    /// Goes behind the events that cannot be read at the start of the log, some in each step.
    fn pass_damage(
        &mut self,
        connection: &Connection,
        memory: &Memory,
    ) -> rusqlite::Result<Oldest> {
        let mut one = connection.prepare_cached(concat!(rows!(), " WHERE pos = ?1"))?;
        let before = self.around.oldest;
        for _ in 0..STEP_EVENTS {
            let pos = self.around.oldest + 1;
            if pos > memory.last_position {
                return Ok(Oldest::None);
            }
            match one.query_row([pos], |_| Ok(())).optional() {
                // In any case by one, whatever is wrong with the way there.
                Ok(Some(())) if self.around.oldest > before => break,
                Ok(_) => {}
                Err(error) if is_corruption(&error) => {}
                Err(error) => return Err(error),
            }
            self.around.oldest = pos;
        }
        Ok(Oldest::Passed)
    }
}

impl Chunk {
    fn take(&mut self, found: &Found, entry: Entry) {
        self.last = found.pos;
        if let (Entry::Known { channel, .. }, Some(channel_no), Some(seq)) =
            (entry, found.channel_no, found.seq)
        {
            let floor = Floor {
                channel,
                seq,
                pos: found.pos,
                at: found.at,
                bytes: found.bytes_to,
            };
            self.floors.insert(channel_no, floor);
        }
    }

    /// Removes the events.
    pub(super) fn remove(
        &self,
        connection: &Connection,
        memory: &mut Memory,
        leave: Leave,
        expiry: u64,
        progress: &mut Progress,
    ) -> rusqlite::Result<()> {
        if !leave.rows {
            connection
                .prepare_cached("DELETE FROM log WHERE pos >= ?1 AND pos <= ?2")?
                .execute([self.first, self.last])?;
        }
        memory.log_bytes = memory.log_bytes.saturating_sub(self.bytes);
        raise_floors(connection, memory, &self.floors, expiry)?;
        progress.removed = self.removed;
        progress.early = self.early;
        progress.more = true;
        Ok(())
    }
}

impl Found {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            pos: row.get(0)?,
            channel_no: row.get(1).ok(),
            seq: row.get(2).ok(),
            at: row.get(3).ok(),
            kept_at: row.get(4).ok(),
            size: row.get(5).unwrap_or(0) + EVENT_BYTES,
            bytes_to: row.get(6).ok(),
        })
    }
}

impl Entry {
    fn read(connection: &Connection, channel_no: i64) -> rusqlite::Result<Self> {
        let found = connection
            .prepare_cached("SELECT uuid, floor_seq FROM channels WHERE channel_no = ?1")?
            .query_row([channel_no], |row| {
                Ok(Self::Known {
                    channel: Uuid::from_bytes(row.get(0)?).into(),
                    floor: row.get(1)?,
                })
            })
            .optional();
        match found {
            Err(error) if is_damage(&error) => Ok(Self::Damaged),
            found => Ok(found?.unwrap_or(Self::None)),
        }
    }

    /// Whether an event was removed before, and only its row was left.
    fn has_removed(self, seq: Option<u64>) -> bool {
        match self {
            Self::Known { floor, .. } => seq.is_some_and(|seq| seq <= floor),
            Self::None => true,
            Self::Damaged => false,
        }
    }
}
