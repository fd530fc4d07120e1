//! The oldest events of channels that have too many, or too large ones.

use std::collections::HashMap;

use chat_model::ChannelId;
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::around::Leave;
use super::floors::{Floor, raise_floors};
use super::{Progress, STEP_BYTES, STEP_CHANNELS, STEP_EVENTS, Sweeper, Work};
use crate::expiry_clock::milliseconds;
use crate::retention::{EARLY, EVENT_BYTES};
use crate::sqlite::failures::{is_corruption, is_damage};
use crate::sqlite::memory::{Log, Memory, load_log};

/// What is to go of a channel in one step.
pub(super) struct Surplus {
    pub(super) channel: ChannelId,
    channel_no: i64,
    /// The places of the events.
    positions: Vec<i64>,
    /// Number, time and bytes of the last of them.
    last: (u64, Option<u64>, u64),
    bytes: u64,
    early: u64,
    /// Whether all of it is in this step.
    pub(super) is_all: bool,
}

/// What is to be known of an event that is to go.
struct Found {
    at: Option<u64>,
    size: u64,
    /// Events of the time before they were counted have none.
    bytes_to: u64,
    kept_at: u64,
}

impl Sweeper {
    /// Finds some events to remove of a channel that waits for it, or has the sweep look at some
    /// channels.
    pub(super) fn next_surplus(
        &mut self,
        connection: &Connection,
        memory: &mut Memory,
        expiry: u64,
    ) -> rusqlite::Result<Work> {
        for _ in 0..STEP_CHANNELS {
            let Some(&channel) = self.over.front() else {
                self.sweep_some(connection)?;
                return Ok(Work::Nothing);
            };
            let log = memory.log(connection, channel);
            let log = self.around.unless_damaged("the entry of a channel", log)?;
            if let Some(log) = log.filter(|log| self.limits.ask_for_less(log)) {
                let surplus = self.surplus(connection, channel, &log, expiry);
                let surplus = self.around.unless_damaged("table places", surplus)?;
                if let Some(surplus) = surplus {
                    return Ok(Work::Surplus(surplus));
                }
            }
            self.strike_over();
        }
        Ok(Work::Nothing)
    }

    /// Looks at some of all channels.
    fn sweep_some(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let Some(seen) = self.sweep else {
            return Ok(());
        };
        let mut statement = connection.prepare_cached(
            "SELECT channel_no, uuid FROM channels WHERE channel_no >= ?1
             ORDER BY channel_no LIMIT ?2",
        )?;
        let mut rows = statement.query(params![seen + 1, STEP_CHANNELS])?;
        let mut next = None;
        loop {
            match rows.next() {
                Ok(Some(row)) => {
                    next = Some(row.get(0)?);
                    if let Ok(uuid) = row.get(1) {
                        self.look_at(connection, Uuid::from_bytes(uuid).into())?;
                    }
                }
                Ok(None) => break,
                Err(error) if is_corruption(&error) => {
                    self.around.note("table channels", &error);
                    // Behind them, number by number.
                    next = match next {
                        None => self.sweep_around(connection, seen)?,
                        before => before,
                    };
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        self.sweep = next;
        Ok(())
    }

    /// Looks at channels one by one, since they cannot all be read; the last number.
    fn sweep_around(
        &mut self,
        connection: &Connection,
        seen: i64,
    ) -> rusqlite::Result<Option<i64>> {
        let last: rusqlite::Result<Option<i64>> =
            connection.query_row("SELECT max(channel_no) FROM channels", [], |row| row.get(0));
        let last = self.around.unless_damaged("table channels", last)?;
        if last.is_none_or(|last| last <= seen) {
            return Ok(None);
        }
        let mut one =
            connection.prepare_cached("SELECT uuid FROM channels WHERE channel_no = ?1")?;
        let next = seen + STEP_CHANNELS as i64;
        for channel_no in seen + 1..=next {
            match one.query_row([channel_no], |row| row.get(0)).optional() {
                Ok(Some(uuid)) => self.look_at(connection, Uuid::from_bytes(uuid).into())?,
                Ok(None) => {}
                Err(error) if is_damage(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Some(next))
    }

    fn look_at(&mut self, connection: &Connection, channel: ChannelId) -> rusqlite::Result<()> {
        // Not by way of the memory, which holds those that are in use.
        let log = load_log(connection, channel);
        let log = self.around.unless_damaged("the entry of a channel", log)?;
        if log.is_some_and(|log| self.limits.ask_for_less(&log)) {
            self.note_over(channel);
        }
        Ok(())
    }

    /// Finds out what is to go; `None` if nothing is. The newest event stays.
    fn surplus(
        &self,
        connection: &Connection,
        channel: ChannelId,
        log: &Log,
        expiry: u64,
    ) -> rusqlite::Result<Option<Surplus>> {
        let by_count = log.head.saturating_sub(self.limits.events);
        let mut surplus = Surplus {
            channel,
            channel_no: log.channel_no,
            positions: Vec::new(),
            last: (0, None, log.floor_bytes),
            bytes: 0,
            early: 0,
            is_all: true,
        };
        // What is new in a channel comes after all the rest of it.
        'all: for sql in [
            "SELECT seq, pos FROM places WHERE channel_no = ?1 AND seq < ?2 ORDER BY seq LIMIT ?3",
            "SELECT seq, pos FROM new_places WHERE channel_no = ?1 AND seq < ?2
             ORDER BY seq LIMIT ?3",
        ] {
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query(params![log.channel_no, log.head, STEP_EVENTS])?;
            while let Some(row) = rows.next()? {
                let (seq, pos) = (row.get(0)?, row.get(1)?);
                let (_, _, before) = surplus.last;
                let is_too_much = log.bytes.saturating_sub(before) > self.limits.bytes;
                if seq > by_count && !is_too_much {
                    break 'all;
                }
                if surplus.positions.len() >= STEP_EVENTS || surplus.bytes > STEP_BYTES {
                    surplus.is_all = false;
                    break 'all;
                }
                let found = Found::at(connection, pos, before)?;
                if seq > by_count {
                    surplus.early += u64::from(found.kept_at + milliseconds(EARLY) > expiry);
                }
                surplus.positions.push(pos);
                surplus.bytes += found.size;
                surplus.last = (seq, found.at, before.max(found.bytes_to));
            }
        }
        Ok((!surplus.positions.is_empty()).then_some(surplus))
    }
}

impl Found {
    /// The event at a position; of one that cannot be read, what it takes at least.
    fn at(connection: &Connection, pos: i64, before: u64) -> rusqlite::Result<Self> {
        let found = connection
            .prepare_cached("SELECT at, length(event), bytes_to, kept_at FROM log WHERE pos = ?1")?
            .query_row([pos], |row| {
                Ok(Self {
                    at: row.get(0).ok(),
                    size: row.get(1).unwrap_or(0) + EVENT_BYTES,
                    bytes_to: row.get(2).unwrap_or(before + EVENT_BYTES),
                    // One that cannot be right does not make it young.
                    kept_at: row.get(3).unwrap_or(0).min(1 << 60),
                })
            })
            .optional();
        let found = match found {
            Err(error) if is_corruption(&error) => None,
            found => found?,
        };
        Ok(found.unwrap_or(Self {
            at: None,
            size: EVENT_BYTES,
            bytes_to: before + EVENT_BYTES,
            kept_at: 0,
        }))
    }
}

impl Surplus {
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
            let mut delete = connection.prepare_cached("DELETE FROM log WHERE pos = ?1")?;
            for pos in &self.positions {
                delete.execute([pos])?;
            }
        }
        memory.log_bytes = memory.log_bytes.saturating_sub(self.bytes);
        let (Some(&pos), (seq, at, bytes)) = (self.positions.last(), self.last) else {
            return Ok(());
        };
        let floor = Floor {
            channel: self.channel,
            seq,
            pos,
            at,
            bytes: Some(bytes),
        };
        let floors = HashMap::from([(self.channel_no, floor)]);
        raise_floors(connection, memory, &floors, expiry)?;
        progress.removed = self.positions.len() as u64;
        progress.early_of = (self.early > 0).then_some((self.channel, self.early));
        Ok(())
    }
}
