//! Removing what has expired, in steps so small that posts do not notice.

use std::collections::{HashMap, VecDeque};

use chat_model::ChannelId;
use rusqlite::{Connection, params};
use uuid::Uuid;

use super::{
    keys,
    memory::Memory,
    places::{self, newest_kept},
};
use crate::{KeyMemory, Retention, expiry_clock::milliseconds};

/// Events that one step removes at most.
const STEP_EVENTS: usize = 1_000;
/// Bytes of events after which a step stops: freeing pages costs time as well.
const STEP_BYTES: u64 = 4 << 20;
/// Channels that one step of the sweep looks at.
const STEP_CHANNELS: usize = 200;
/// Channels that may wait for their turn; with more, all channels are swept instead.
const WAITING_CHANNELS: usize = 10_000;
/// Unused pages that stay in the file for new events, besides a tenth of it.
const SPARE_PAGES: u64 = 1_024;
/// Unused pages that one step gives back to the disk.
const STEP_PAGES: u64 = 256;

/// The rules and where the work stands.
pub(super) struct Sweeper {
    max_age: u64,
    max_per_channel: u64,
    max_bytes: u64,
    key_age: u64,
    /// Channels known to have too many events.
    over: VecDeque<ChannelId>,
    /// The last channel that the sweep over all of them has seen; `None` when it is done. It
    /// starts with the store, since the rules may have changed.
    sweep: Option<i64>,
}

/// What a step did.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Progress {
    /// Events removed.
    pub(super) removed: u64,
    /// Whether another step will find something to do.
    pub(super) more: bool,
}

impl Sweeper {
    pub(super) fn new(retention: &Retention, keys: &KeyMemory) -> Self {
        Self {
            max_age: milliseconds(retention.max_age),
            max_per_channel: retention.max_per_channel,
            max_bytes: retention.max_bytes,
            key_age: milliseconds(keys.max_age),
            over: VecDeque::new(),
            sweep: Some(0),
        }
    }

    /// Notes the length that a channel has reached. Removing starts a little above the limit, so
    /// that a busy channel is not trimmed for every single event.
    pub(super) fn note_length(&mut self, channel: ChannelId, length: u64) {
        let slack = (self.max_per_channel / 10).min(STEP_EVENTS as u64);
        let excess = length.saturating_sub(self.max_per_channel + slack);
        // Asked once for each step that is due, not for every event.
        if excess == 0 || excess % (slack + 1) != 1 % (slack + 1) {
            return;
        }
        if self.over.len() < WAITING_CHANNELS {
            self.over.push_back(channel);
        } else {
            self.sweep = Some(0);
        }
    }

    pub(super) fn has_work(&self) -> bool {
        !self.over.is_empty() || self.sweep.is_some()
    }

    /// Starts the sweep over all channels again.
    pub(super) fn sweep_all(&mut self) {
        self.sweep = Some(0);
    }

    /// One step, inside the open transaction.
    pub(super) fn step(
        &mut self,
        connection: &Connection,
        memory: &mut Memory,
        expiry: u64,
    ) -> rusqlite::Result<Progress> {
        let keys_left = self.expire_keys(connection, memory, expiry)?;
        let mut progress = self.remove_oldest(connection, memory, expiry)?;
        progress.more |= keys_left;
        if progress.removed == 0 {
            progress = self.trim_channels(connection, memory, progress)?;
        } else {
            progress.more |= self.has_work();
        }
        Ok(progress)
    }

    fn expire_keys(
        &self,
        connection: &Connection,
        memory: &mut Memory,
        expiry: u64,
    ) -> rusqlite::Result<bool> {
        let Some(cutoff) = expiry.checked_sub(self.key_age) else {
            return Ok(false);
        };
        let last: Option<i64> = connection
            .prepare_cached(
                "SELECT max(n) FROM (SELECT n, kept_at FROM sender_keys ORDER BY n LIMIT ?1)
                 WHERE kept_at <= ?2",
            )?
            .query_row(params![STEP_EVENTS, cutoff], |row| row.get(0))?;
        let Some(last) = last else { return Ok(false) };
        let gone = keys::forget_before(connection, memory, last + 1)?;
        Ok(gone >= STEP_EVENTS as i64)
    }

    /// Removes events from the start of the log: the expired ones, and as many as the size asks.
    fn remove_oldest(
        &self,
        connection: &Connection,
        memory: &mut Memory,
        expiry: u64,
    ) -> rusqlite::Result<Progress> {
        let cutoff = expiry.checked_sub(self.max_age);
        let mut excess = used_bytes(connection)?.saturating_sub(self.max_bytes);
        let mut statement = connection.prepare_cached(
            "SELECT pos, uuid, seq, at, kept_at, length(event), channel_no
             FROM log CROSS JOIN channels USING (channel_no) ORDER BY pos LIMIT ?1",
        )?;
        let mut rows = statement.query([STEP_EVENTS])?;
        let mut floors: HashMap<i64, Floor> = HashMap::new();
        let (mut last, mut removed, mut bytes) = (0_i64, 0, 0);
        let mut progress = Progress::default();
        while let Some(row) = rows.next()? {
            let kept_at: u64 = row.get(4)?;
            let expired = cutoff.is_some_and(|cutoff| kept_at <= cutoff);
            if !expired && excess == 0 {
                break;
            }
            if bytes > STEP_BYTES {
                progress.more = true;
                break;
            }
            let length: u64 = row.get(5)?;
            // Every event takes a little more than its own bytes; the next step measures again.
            excess = excess.saturating_sub(length);
            bytes += length;
            last = row.get(0)?;
            removed += 1;
            floors.insert(
                row.get(6)?,
                Floor {
                    channel: Uuid::from_bytes(row.get(1)?).into(),
                    seq: row.get(2)?,
                    at: row.get(3)?,
                },
            );
        }
        drop(rows);
        if removed == 0 {
            return Ok(progress);
        }
        places::settle(connection, memory)?;
        connection
            .prepare_cached("DELETE FROM log WHERE pos <= ?1")?
            .execute([last])?;
        raise_floors(connection, memory, &floors)?;
        progress.removed = removed;
        // After the last expired event, size may still ask for more, and the next step looks.
        progress.more |= removed == STEP_EVENTS as u64 || excess > 0;
        progress.more |= used_bytes(connection)? > self.max_bytes;
        Ok(progress)
    }

    fn trim_channels(
        &mut self,
        connection: &Connection,
        memory: &mut Memory,
        mut progress: Progress,
    ) -> rusqlite::Result<Progress> {
        if let Some(&channel) = self.over.front() {
            let (removed, done) = self.trim(connection, memory, channel)?;
            // Queued again by the next event if this transaction fails.
            if done {
                self.over.pop_front();
            }
            progress.removed += removed;
        } else if let Some(seen) = self.sweep {
            let mut statement = connection.prepare_cached(concat!(
                "SELECT channel_no, uuid, ",
                newest_kept!(),
                " - floor_seq > ?3
                 FROM channels WHERE channel_no > ?1 ORDER BY channel_no LIMIT ?2",
            ))?;
            let limit = i64::try_from(self.max_per_channel).unwrap_or(i64::MAX);
            let mut rows = statement.query(params![seen, STEP_CHANNELS, limit])?;
            let mut next = None;
            while let Some(row) = rows.next()? {
                next = Some(row.get(0)?);
                if row.get::<_, Option<bool>>(2)? == Some(true) {
                    self.over.push_back(Uuid::from_bytes(row.get(1)?).into());
                }
            }
            self.sweep = next;
        }
        progress.more |= self.has_work();
        Ok(progress)
    }

    /// Removes a channel's oldest events; how many, and whether none are left to remove.
    fn trim(
        &self,
        connection: &Connection,
        memory: &mut Memory,
        channel: ChannelId,
    ) -> rusqlite::Result<(u64, bool)> {
        let Some(log) = memory.log(connection, channel)? else {
            return Ok((0, true));
        };
        let wanted = log.head.saturating_sub(self.max_per_channel);
        if wanted <= log.floor {
            return Ok((0, true));
        }
        places::settle(connection, memory)?;
        let last: Option<(u64, u64)> = {
            let mut statement = connection.prepare_cached(
                "SELECT place.seq, at, length(event) FROM places place CROSS JOIN log USING (pos)
                 WHERE place.channel_no = ?1 AND place.seq <= ?2 ORDER BY place.seq LIMIT ?3",
            )?;
            let mut rows = statement.query(params![log.channel_no, wanted, STEP_EVENTS])?;
            let (mut last, mut bytes) = (None, 0);
            while let Some(row) = rows.next()? {
                bytes += row.get::<_, u64>(2)?;
                last = Some((row.get(0)?, row.get(1)?));
                if bytes > STEP_BYTES {
                    break;
                }
            }
            last
        };
        let Some((seq, at)) = last else {
            return Ok((0, true));
        };
        let removed = connection
            .prepare_cached(
                "DELETE FROM log WHERE pos IN
                    (SELECT pos FROM places WHERE channel_no = ?1 AND seq <= ?2)",
            )?
            .execute(params![log.channel_no, seq])?;
        let floors = HashMap::from([(log.channel_no, Floor { channel, seq, at })]);
        raise_floors(connection, memory, &floors)?;
        Ok((removed as u64, seq >= wanted))
    }
}

/// The newest event of a channel among those removed.
struct Floor {
    channel: ChannelId,
    seq: u64,
    at: u64,
}

/// Writes down where each log now begins, which is also where it goes on if nothing of it is left,
/// and the highest position, which must not be handed out again.
fn raise_floors(
    connection: &Connection,
    memory: &mut Memory,
    floors: &HashMap<i64, Floor>,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "UPDATE channels SET floor_seq = ?2, floor_at = ?3 WHERE channel_no = ?1",
    )?;
    for (channel_no, floor) in floors {
        statement.execute(params![channel_no, floor.seq, floor.at])?;
        places::forget(connection, *channel_no, floor.seq)?;
        memory.logs.forget(floor.channel);
    }
    connection
        .prepare_cached("UPDATE state SET last_position = max(last_position, ?1)")?
        .execute([memory.last_position])?;
    Ok(())
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<u64> {
    connection
        .prepare_cached(&format!("PRAGMA {name}"))?
        .query_row([], |row| row.get(0))
}

/// Bytes of the pages that hold something.
fn used_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let pages = pragma(connection, "page_count")?;
    let free = pragma(connection, "freelist_count")?;
    Ok(pages.saturating_sub(free) * pragma(connection, "page_size")?)
}

/// Gives some unused pages back to the disk; whether there are more.
pub(super) fn vacuum_step(connection: &Connection) -> rusqlite::Result<bool> {
    let spare = pragma(connection, "page_count")? / 10 + SPARE_PAGES;
    let surplus = pragma(connection, "freelist_count")?.saturating_sub(spare);
    if surplus == 0 {
        return Ok(false);
    }
    let pages = surplus.min(STEP_PAGES);
    let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(surplus > pages)
}
