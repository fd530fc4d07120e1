//! What the writer does besides: saving the watermark, and retention.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rusqlite::params;

use super::{MESSAGE_BYTES, SAVE_EVERY, Writer};
use crate::StoreError;
use crate::expiry_clock::ExpiryClock;
use crate::sqlite::checkpoint::Room;
use crate::sqlite::database::Failure;
use crate::sqlite::memory::{Memory, save_size};
use crate::sqlite::retention::{Progress, vacuum_step};

/// How often an idle store saves its expiry clock: a crash makes up for at most a day of it.
const SAVE_IDLE_EVERY: Duration = Duration::from_secs(3600);
/// Bytes of events after which it is saved how large the log is: so much is counted anew after a
/// crash, and after a failed transaction.
const SAVE_BYTES: u64 = 64 << 20;
/// How often retention looks for something to do, and how long it rests after a failure.
pub(super) const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// The pause between steps of retention while there is more to remove.
const STEP_PAUSE: Duration = Duration::from_millis(20);

impl Writer {
    /// Everything that retention has to do now.
    pub(super) fn expire_all(&mut self) -> Result<u64, StoreError> {
        self.sweeper.sweep_all();
        let mut removed = 0;
        loop {
            match self.retention_step() {
                Ok(progress) => {
                    removed += progress.removed;
                    if !progress.more {
                        return Ok(removed);
                    }
                }
                Err(failure) => return Err(failure.to_error()),
            }
        }
    }

    /// One step; once more, if the disk was full and there is room now.
    fn retention_step(&mut self) -> Result<Progress, Failure> {
        let failure = match self.try_retention_step() {
            Ok(progress) => return Ok(progress),
            Err(failure) => failure,
        };
        let has_room = self.note_failure(&failure);
        if !failure.is_disk_full() {
            return Err(failure);
        }
        // To remove something is what the reserve is for.
        if !has_room {
            self.make_room_now();
        }
        self.try_retention_step().inspect_err(|failure| {
            self.note_failure(failure);
        })
    }

    fn try_retention_step(&mut self) -> Result<Progress, Failure> {
        let expiry = self.expiry.reading();
        let mut progress = self.sweeper.step(&mut self.database, expiry)?;
        if let Some(damage) = &progress.damage {
            self.shared.counters.damage.note_database(damage);
        }
        self.note_removed(&progress);
        self.note_keys();
        match self.database.direct(vacuum_step) {
            // Without a connection there is no more to do now.
            Ok(more) => progress.more |= more.unwrap_or(false),
            Err(error) => {
                self.note_failure(&Failure::NothingStored(error));
            }
        }
        // A removed event changes about as much as a stored one.
        self.bytes_since_checkpoint += usize::try_from(progress.removed)
            .unwrap_or(usize::MAX)
            .saturating_mul(MESSAGE_BYTES);
        if self.bytes_since_checkpoint >= self.checkpoint_bytes {
            self.ask_checkpoint();
        }
        Ok(progress)
    }

    fn note_removed(&self, progress: &Progress) {
        let counters = &self.shared.counters;
        counters.expired.fetch_add(progress.removed, Relaxed);
        counters
            .channels_forgotten
            .fetch_add(progress.forgotten, Relaxed);
        counters.count_early(progress.early);
        if let Some((channel, events)) = progress.early_of {
            counters.count_early_of(channel, events);
        }
    }

    /// Whether a crash would leave many events to be counted.
    pub(super) fn much_is_unsaved(&mut self) -> bool {
        let memory = self.database.memory();
        memory.is_some_and(|memory| memory.unsaved_bytes > SAVE_BYTES)
    }

    pub(super) fn watermark_moved(&self) -> bool {
        self.shared.published_to() > self.saved_watermark
    }

    pub(super) fn note_saved(&mut self, watermark: u64) {
        self.saved_watermark = watermark;
        self.saved_at = Instant::now();
        self.moved_at = None;
        // A move between reading the watermark and here announces nothing; it is looked for below.
        self.shared.take_announcement();
    }

    /// When the watermark and the expiry clock are to be saved if no batch takes them along.
    pub(super) fn next_save(&mut self) -> Instant {
        if self.watermark_moved() {
            *self.moved_at.get_or_insert_with(Instant::now) + SAVE_EVERY
        } else {
            self.saved_at + SAVE_IDLE_EVERY
        }
    }

    /// What is due between batches.
    pub(super) fn chores(&mut self) {
        if self.shared.take_wish() {
            self.empty_log(Room::Kept);
        }
        if self.shared.takes_room() {
            // While the reserve is still enough to bring the log into the database.
            let _made = self.make_room() && self.reserve.make();
        }
        let started = Instant::now();
        if self.next_save() <= started {
            self.save();
        }
        if self.sweeper.has_work() && !self.sweep_failed {
            self.next_sweep = self.next_sweep.min(started + STEP_PAUSE);
        }
        if self.next_sweep <= started {
            let done = self.retention_step();
            self.sweep_failed = done.is_err();
            let pause = match done {
                Ok(progress) if progress.more => STEP_PAUSE,
                Ok(_) => SWEEP_EVERY,
                Err(_noted) => SWEEP_EVERY,
            };
            self.next_sweep = Instant::now() + pause;
        }
    }

    pub(super) fn save(&mut self) {
        let watermark = self.shared.published_to();
        let expiry = &self.expiry;
        let saved = self
            .database
            .transaction(|connection, memory| save_state(connection, memory, watermark, expiry));
        match saved {
            Ok(()) => self.note_saved(watermark),
            Err(failure) => {
                self.note_failure(&failure);
                // The next attempt comes when it would have been due again.
                self.saved_at = Instant::now();
                self.moved_at = None;
            }
        }
    }
}

pub(super) fn save_state(
    connection: &rusqlite::Connection,
    memory: &mut Memory,
    watermark: u64,
    expiry: &ExpiryClock,
) -> rusqlite::Result<()> {
    let saved = expiry.save();
    connection
        .prepare_cached(
            "UPDATE state SET published_to = ?1, expiry_clock = ?2, expiry_saved_at = ?3",
        )?
        .execute(params![watermark, saved.reading, saved.saved_at])?;
    save_size(connection, memory)
}
