//! The oldest events of channels that have too many, or too large ones.

use std::collections::HashMap;

use chat_model::ChannelId;
use rusqlite::{Connection, params};
use uuid::Uuid;

use super::floors::{Floor, raise_floors};
use super::{Progress, STEP_BYTES, STEP_CHANNELS, STEP_EVENTS, Sweeper};
use crate::expiry_clock::milliseconds;
use crate::retention::{EARLY, EVENT_BYTES};
use crate::sqlite::memory::{Log, Memory, load_log};
use crate::sqlite::places;
use crate::sqlite::queries::unless_damaged;

/// What is to go of a channel in one step.
struct Surplus {
    last: Floor,
    bytes: u64,
    early: u64,
    /// Whether all of it is in this step.
    is_all: bool,
}

impl Sweeper {
    /// Some of a channel that waits for it, or the sweep's next look at some channels.
    pub(super) fn trim_channels(
        &mut self,
        connection: &Connection,
        memory: &mut Memory,
        expiry: u64,
        progress: &mut Progress,
    ) -> rusqlite::Result<()> {
        if let Some(&channel) = self.over.front() {
            // Noted again by the next event if this transaction fails.
            if self.trim(connection, memory, channel, expiry, progress)? {
                self.over.pop_front();
                self.waiting.remove(&channel);
            }
            return Ok(());
        }
        let Some(seen) = self.sweep else {
            return Ok(());
        };
        let mut statement = connection.prepare_cached(
            "SELECT channel_no, uuid FROM channels WHERE channel_no > ?1
             ORDER BY channel_no LIMIT ?2",
        )?;
        let mut rows = statement.query(params![seen, STEP_CHANNELS])?;
        let mut next = None;
        while let Some(row) = rows.next()? {
            next = Some(row.get(0)?);
            let channel = Uuid::from_bytes(row.get(1)?).into();
            // Not by way of the memory, which holds those that are in use.
            let log = unless_damaged(load_log(connection, channel))?;
            if log.is_some_and(|log| self.limits.ask_for_less(&log)) && self.waiting.insert(channel)
            {
                self.over.push_back(channel);
            }
        }
        self.sweep = next;
        Ok(())
    }

    /// Removes a channel's oldest events; whether none are left to remove.
    fn trim(
        &self,
        connection: &Connection,
        memory: &mut Memory,
        channel: ChannelId,
        expiry: u64,
        progress: &mut Progress,
    ) -> rusqlite::Result<bool> {
        let Some(log) = unless_damaged(memory.log(connection, channel))? else {
            return Ok(true);
        };
        if !self.limits.ask_for_less(&log) {
            return Ok(true);
        }
        places::settle(connection, memory)?;
        let surplus = self.surplus(connection, channel, &log, expiry);
        let Some(surplus) = unless_damaged(surplus)? else {
            return Ok(true);
        };
        let removed = connection
            .prepare_cached(
                "DELETE FROM log WHERE pos IN
                    (SELECT pos FROM places WHERE channel_no = ?1 AND seq <= ?2)",
            )?
            .execute(params![log.channel_no, surplus.last.seq])?;
        memory.log_bytes = memory.log_bytes.saturating_sub(surplus.bytes);
        let floors = HashMap::from([(log.channel_no, surplus.last)]);
        raise_floors(connection, memory, &floors, expiry)?;
        progress.removed += removed as u64;
        progress.early_of = (surplus.early > 0).then_some((channel, surplus.early));
        Ok(surplus.is_all)
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
        let mut statement = connection.prepare_cached(
            "SELECT place.seq, at, length(event), bytes_to, kept_at
             FROM places place CROSS JOIN log USING (pos)
             WHERE place.channel_no = ?1 AND place.seq < ?2 ORDER BY place.seq LIMIT ?3",
        )?;
        let mut rows = statement.query(params![log.channel_no, log.head, STEP_EVENTS])?;
        let mut surplus: Option<Surplus> = None;
        let (mut events, mut bytes, mut early) = (0, 0, 0);
        let mut before = log.floor_bytes;
        while let Some(row) = rows.next()? {
            let seq = row.get(0)?;
            let is_too_much = log.bytes.saturating_sub(before) > self.limits.bytes;
            if seq > by_count {
                if !is_too_much {
                    break;
                }
                early += u64::from(row.get::<_, u64>(4)? + milliseconds(EARLY) > expiry);
            }
            events += 1;
            bytes += row.get::<_, u64>(2)? + EVENT_BYTES;
            // Events of the time before they were counted have none.
            before = before.max(row.get(3)?);
            let last = Floor {
                channel,
                seq,
                at: row.get(1)?,
                bytes: before,
            };
            let is_all = events < STEP_EVENTS && bytes <= STEP_BYTES;
            surplus = Some(Surplus {
                last,
                bytes,
                early,
                is_all,
            });
            if bytes > STEP_BYTES {
                break;
            }
        }
        Ok(surplus)
    }
}
