//! Removing what has expired, in steps so small that posts do not notice.
//!
//! Each step first looks at what there is to do, outside of a transaction, and then does it in one:
//! SQLite lets no transaction write any more that has met a damaged page. Where that is met even so,
//! the step is done as far as it goes without, and what is left out is not tried again until the
//! store is opened the next time.

mod around;
mod floors;
mod forgetting;
mod limits;
mod oldest;
mod surplus;
mod vacuum;

use std::collections::{HashSet, VecDeque};

use chat_model::ChannelId;
use rusqlite::{Connection, params};

use self::around::{Around, Leave};
use self::forgetting::Forgetting;
use self::oldest::{Chunk, Oldest};
use self::surplus::Surplus;
use super::database::{Database, Failure};
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
    around: Around,
}

/// What a step did.
#[derive(Debug, Default, Clone)]
pub(super) struct Progress {
    /// Events removed.
    pub(super) removed: u64,
    /// Those of them that were young, and went because all together were too large.
    pub(super) early: u64,
    /// The same because those of one channel were.
    pub(super) early_of: Option<(ChannelId, u64)>,
    /// Channels forgotten.
    pub(super) forgotten: u64,
    /// What was found damaged, and is left out from now on.
    pub(super) damage: Option<String>,
    /// Whether another step will find something to do.
    pub(super) more: bool,
}

/// What a step is to do.
struct Plan {
    expiry: u64,
    /// The number of the last key to forget.
    keys: Option<i64>,
    work: Work,
}

enum Work {
    Nothing,
    /// Nothing this time, but perhaps the next.
    Later,
    Oldest(Chunk),
    Surplus(Surplus),
    Forgetting(Forgetting),
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
            around: Around::default(),
        }
    }

    pub(super) fn limits(&self) -> ChannelLimits {
        self.limits
    }

    /// Notes a channel that has more than it may.
    pub(super) fn note_over(&mut self, channel: ChannelId) {
        if self.over.len() >= WAITING_CHANNELS {
            self.sweep = Some(0);
        } else if !self.around.has(channel) && self.waiting.insert(channel) {
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

    /// One step. Fails if nothing can be written at the moment; damage is no failure.
    pub(super) fn step(
        &mut self,
        database: &mut Database,
        expiry: u64,
    ) -> Result<Progress, Failure> {
        let plan = database
            .read(|connection, memory| self.look(connection, memory, expiry))
            .map_err(Failure::NothingStored)?;
        let mut progress = self.carry_out_around(&plan, database)?;
        progress.damage = progress.damage.or(self.around.take_met());
        progress.more |= self.has_work() || progress.removed > 0;
        Ok(progress)
    }

    /// Does what was planned, as far as damage lets it.
    fn carry_out_around(
        &mut self,
        plan: &Plan,
        database: &mut Database,
    ) -> Result<Progress, Failure> {
        let mut progress = Progress {
            more: matches!(plan.work, Work::Later),
            ..Progress::default()
        };
        let is_nothing = matches!(plan.work, Work::Nothing | Work::Later);
        if plan.keys.is_none() && is_nothing {
            return Ok(progress);
        }
        let mut damage = None;
        for leave in Leave::TRIES {
            if leave == Leave::KEYS && plan.keys.is_none() {
                continue;
            }
            let done = database.transaction(|connection, memory| {
                let mut progress = progress.clone();
                self.carry_out(plan, connection, memory, leave, &mut progress)?;
                Ok(progress)
            });
            match done {
                Ok(done) => {
                    progress = done;
                    self.settle(plan, leave);
                    progress.damage = damage;
                    return Ok(progress);
                }
                Err(failure) if failure.is_damage() => {
                    damage = Some(failure.to_error().to_string());
                }
                Err(failure) => return Err(failure),
            }
        }
        self.give_up(plan);
        progress.damage = damage;
        progress.more = true;
        Ok(progress)
    }

    /// What there is to do next. Changes nothing in the database.
    fn look(
        &mut self,
        connection: &Connection,
        memory: &mut Memory,
        expiry: u64,
    ) -> rusqlite::Result<Plan> {
        let keys = self.expired_keys(connection, memory, expiry);
        let keys = self.around.unless_damaged("the oldest keys", keys)?;
        // What expires steadily must not keep the rest from its turn.
        self.turn = (self.turn + 1) % 3;
        let mut work = match self.turn {
            0 => self.next_surplus(connection, memory, expiry)?,
            1 => self.next_forgetting(connection, memory, expiry)?,
            _ => Work::Nothing,
        };
        if matches!(work, Work::Nothing) {
            work = match self.oldest(connection, memory, expiry)? {
                Oldest::None => Work::Nothing,
                Oldest::Passed => Work::Later,
                Oldest::Some(chunk) => Work::Oldest(chunk),
            };
        }
        if matches!(work, Work::Nothing) && self.turn != 0 {
            work = self.next_surplus(connection, memory, expiry)?;
        }
        if matches!(work, Work::Nothing) && self.turn != 1 {
            work = self.next_forgetting(connection, memory, expiry)?;
        }
        Ok(Plan { expiry, keys, work })
    }

    /// Does what was planned, inside the open transaction.
    fn carry_out(
        &self,
        plan: &Plan,
        connection: &Connection,
        memory: &mut Memory,
        leave: Leave,
        progress: &mut Progress,
    ) -> rusqlite::Result<()> {
        if let Some(last) = plan.keys.filter(|_| !leave.keys) {
            let first = self.first_key(memory);
            let gone = keys::forget(connection, memory, first..last + 1)?;
            progress.more |= gone >= STEP_EVENTS as i64;
        }
        match &plan.work {
            Work::Nothing | Work::Later => Ok(()),
            Work::Oldest(chunk) => chunk.remove(connection, memory, leave, plan.expiry, progress),
            Work::Surplus(surplus) => {
                surplus.remove(connection, memory, leave, plan.expiry, progress)
            }
            Work::Forgetting(_) if leave.rows => Ok(()),
            Work::Forgetting(forgetting) => {
                forgetting.carry_out(connection, memory, plan.expiry, progress)
            }
        }
    }

    /// Notes what was done, and what was left out.
    fn settle(&mut self, plan: &Plan, leave: Leave) {
        if let Some(last) = plan.keys.filter(|_| leave.keys) {
            self.around.keys = last;
        }
        match &plan.work {
            Work::Nothing | Work::Later => {}
            Work::Oldest(chunk) if leave.rows => self.around.oldest = chunk.last,
            Work::Oldest(_) => {}
            Work::Surplus(surplus) => {
                if surplus.is_all {
                    self.strike_over();
                }
            }
            Work::Forgetting(_) if leave.rows => self.around.forgetting = true,
            Work::Forgetting(forgetting) => self.note_forgotten(forgetting),
        }
    }

    /// Notes that nothing of it can be done.
    fn give_up(&mut self, plan: &Plan) {
        self.settle(plan, Leave::ROWS);
        if let Work::Surplus(surplus) = &plan.work {
            self.around.insert(surplus.channel);
            self.strike_over();
        }
    }

    /// The channel that waited longest does so no longer.
    fn strike_over(&mut self) {
        if let Some(channel) = self.over.pop_front() {
            self.waiting.remove(&channel);
        }
    }

    fn expired_keys(
        &self,
        connection: &Connection,
        memory: &Memory,
        expiry: u64,
    ) -> rusqlite::Result<Option<i64>> {
        let Some(cutoff) = expiry.checked_sub(self.key_age) else {
            return Ok(None);
        };
        connection
            .prepare_cached(
                "SELECT max(n) FROM (
                    SELECT n, kept_at FROM sender_keys WHERE n >= ?1 ORDER BY n LIMIT ?2)
                 WHERE kept_at <= ?3",
            )?
            .query_row(
                params![self.first_key(memory), STEP_EVENTS, cutoff],
                |row| row.get(0),
            )
    }

    /// The number of the first key that is not left out.
    fn first_key(&self, memory: &Memory) -> i64 {
        memory.keys.start.max(self.around.keys + 1)
    }
}

#[cfg(test)]
mod tests;
