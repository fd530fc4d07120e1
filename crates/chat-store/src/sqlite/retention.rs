//! Removing what has expired, in steps so small that posts do not notice.

mod floors;
mod forgetting;
mod limits;
mod oldest;
mod surplus;
mod vacuum;

use std::collections::{HashSet, VecDeque};

use chat_model::ChannelId;
use rusqlite::{Connection, params};

use super::keys;
use super::memory::Memory;
use crate::expiry_clock::milliseconds;
use crate::retention::{EMPTY_FOR, MOST_EMPTY_CHANNELS};
use crate::{KeyMemory, Retention};

pub(super) use self::limits::ChannelLimits;
pub(super) use self::vacuum::vacuum_step;

/// Events that one step removes at most.
const STEP_EVENTS: usize = 1_000;
/// Bytes of events after which a step stops: freeing pages costs time as well.
const STEP_BYTES: u64 = 4 << 20;
/// Channels that one step of the sweep looks at, or forgets.
const STEP_CHANNELS: usize = 200;
/// Channels that may wait for their turn; with more, all channels are swept instead.
const WAITING_CHANNELS: usize = 10_000;

/// The rules and where the work stands.
pub(super) struct Sweeper {
    max_age: u64,
    max_bytes: u64,
    limits: ChannelLimits,
    key_age: u64,
    /// How long and how many channels are remembered of which nothing is kept.
    empty_for: u64,
    most_empty: u64,
    /// How many of the oldest entries are to be forgotten because there are more.
    surplus: u64,
    /// The last entry seen of those that are being tidied.
    tidied: Option<i64>,
    /// Channels known to have too many events, or too large ones; each once.
    over: VecDeque<ChannelId>,
    waiting: HashSet<ChannelId>,
    /// The last channel that the sweep over all of them has seen; `None` when it is done. It
    /// starts with the store, since the rules may have changed.
    sweep: Option<i64>,
    /// Whose turn it is to come before the oldest events.
    turn: u8,
}

/// What a step did.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Progress {
    /// Events removed.
    pub(super) removed: u64,
    /// Those of them that were young, and went because all together were too large.
    pub(super) early: u64,
    /// The same because those of one channel were.
    pub(super) early_of: Option<(ChannelId, u64)>,
    /// Channels forgotten.
    pub(super) forgotten: u64,
    /// Whether another step will find something to do.
    pub(super) more: bool,
}

impl Sweeper {
    pub(super) fn new(retention: &Retention, keys: &KeyMemory) -> Self {
        Self {
            max_age: milliseconds(retention.max_age),
            max_bytes: retention.max_bytes,
            limits: ChannelLimits::new(retention),
            key_age: milliseconds(keys.max_age),
            empty_for: milliseconds(EMPTY_FOR),
            most_empty: MOST_EMPTY_CHANNELS,
            surplus: 0,
            tidied: None,
            over: VecDeque::new(),
            waiting: HashSet::new(),
            sweep: Some(0),
            turn: 0,
        }
    }

    pub(super) fn limits(&self) -> ChannelLimits {
        self.limits
    }

    /// Notes a channel that has more than it may.
    pub(super) fn note_over(&mut self, channel: ChannelId) {
        if self.over.len() >= WAITING_CHANNELS {
            self.sweep = Some(0);
        } else if self.waiting.insert(channel) {
            self.over.push_back(channel);
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
        let mut progress = Progress::default();
        // What expires steadily must not keep the rest from its turn.
        self.turn = (self.turn + 1) % 3;
        match self.turn {
            0 => self.trim_channels(connection, memory, expiry, &mut progress)?,
            1 => self.forget_channels(connection, memory, expiry, &mut progress)?,
            _ => {}
        }
        if progress.removed == 0 && progress.forgotten == 0 {
            let oldest = self.remove_oldest(connection, memory, expiry)?;
            progress.removed = oldest.removed;
            progress.early = oldest.early;
        }
        if progress.removed == 0 {
            self.trim_channels(connection, memory, expiry, &mut progress)?;
        }
        if progress.removed == 0 {
            self.forget_channels(connection, memory, expiry, &mut progress)?;
        }
        progress.more |= keys_left || self.has_work() || progress.removed > 0;
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
}

#[cfg(test)]
mod tests;
