//! The thread that writes: whatever arrived while one transaction committed goes into the next.

mod chores;
mod damaged;
mod room;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::append::{Batch, Moment};
use super::checkpoint::Checkpointer;
use super::database::{Database, Failure};
use super::epochs::begin_epoch;
use super::health::Health;
use super::keys::KeyRules;
use super::options::SqliteOptions;
use super::reserve::Reserve;
use super::retention::Sweeper;
use super::shared::{SettlesMark, Shared};
use super::writer::chores::{SWEEP_EVERY, save_state};
use super::writer::damaged::LostChannels;
use crate::expiry_clock::{ExpiryClock, now};
use crate::queue::{BATCH_BYTES, Post, Reply, answer};
use crate::sender_keys::key_of;
use crate::{Appended, StoreError, Unpublished};

/// Bytes of the write-ahead log between checkpoints, estimated: a commit writes about six pages
/// besides the events, and every message its share of what moves among the places.
const CHECKPOINT_BYTES: usize = 8 << 20;
const COMMIT_BYTES: usize = 24 << 10;
const MESSAGE_BYTES: usize = 512;
/// How often the watermark is saved while it moves; that much is published again after a crash.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// What the thread is asked.
pub(super) enum Job {
    Append(Box<Post>),
    /// The watermark moved for the first time since it was saved.
    Published,
    Check(Reply<()>),
    NewEpoch(Reply<u64>),
    Expire(Reply<u64>),
    Close,
}

pub(super) struct Writer {
    /// Before the database: its connection may be the last, which takes the write-ahead log along.
    _at_end: SettlesMark,
    database: Database,
    shared: Arc<Shared>,
    checkpointer: Checkpointer,
    expiry: ExpiryClock,
    clock: clock::SharedClock,
    rules: KeyRules,
    sweeper: Sweeper,
    health: Health,
    reserve: Reserve,
    made_room_at: Option<Instant>,
    lost: LostChannels,
    largest_batch: usize,
    saved_watermark: u64,
    saved_at: Instant,
    /// When the watermark was first seen to have moved since it was saved.
    moved_at: Option<Instant>,
    next_sweep: Instant,
    /// Whether the last step of retention failed: the next one comes after a rest.
    sweep_failed: bool,
    bytes_since_checkpoint: usize,
    checkpoint_bytes: usize,
}

/// What was done already to store a batch.
#[derive(Debug, Clone, Copy, Default)]
struct Tries {
    /// Room was made on a full disk.
    with_room: bool,
    /// How often it was tried without what is damaged.
    causes: u8,
}

/// What the writer works with.
pub(super) struct Tools {
    pub(super) shared: Arc<Shared>,
    pub(super) checkpointer: Checkpointer,
    pub(super) reserve: Reserve,
}

impl Writer {
    pub(super) fn new(
        options: &SqliteOptions,
        database: Database,
        tools: Tools,
        expiry: ExpiryClock,
    ) -> Self {
        let started = Instant::now();
        let Tools {
            shared,
            checkpointer,
            reserve,
        } = tools;
        Self {
            checkpoint_bytes: reserve
                .largest_log()
                .and_then(|bytes| usize::try_from(bytes / 2).ok())
                .map_or(CHECKPOINT_BYTES, |bytes| bytes.min(CHECKPOINT_BYTES)),
            reserve,
            made_room_at: None,
            lost: LostChannels::default(),
            _at_end: SettlesMark(shared.clone()),
            database,
            saved_watermark: shared.published_to(),
            shared,
            checkpointer,
            expiry,
            clock: options.clock.clone(),
            rules: KeyRules::new(&options.keys),
            sweeper: Sweeper::new(&options.retention, &options.keys),
            health: Health::new(started),
            largest_batch: options.batch,
            saved_at: started,
            moved_at: None,
            next_sweep: started + SWEEP_EVERY,
            sweep_failed: false,
            bytes_since_checkpoint: 0,
        }
    }

    /// Works until it is told to close, or nobody is left to ask.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        // A full disk is known, and told, before anybody posts.
        drop(self.expect_room());
        loop {
            let chore = self.next_save().min(self.next_sweep);
            let wait = chore.saturating_duration_since(Instant::now());
            let mut next = match jobs.recv_timeout(wait) {
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            while let Some(job) = next.take() {
                match job {
                    Job::Append(post) => {
                        let (batch, other) = self.gather(*post, jobs);
                        self.store(batch);
                        next = other;
                    }
                    Job::Published => {}
                    Job::Check(reply) => answer(reply, self.check()),
                    Job::NewEpoch(reply) => answer(reply, self.new_epoch()),
                    Job::Expire(reply) => answer(reply, self.expire_all()),
                    Job::Close => return self.finish(),
                }
            }
            self.chores();
        }
        self.finish();
    }

    /// Takes what waits already, up to the bounds; the first other job ends the batch.
    fn gather(&self, first: Post, jobs: &Receiver<Job>) -> (Vec<Post>, Option<Job>) {
        let mut bytes = first.bytes();
        let mut batch = vec![first];
        while batch.len() < self.largest_batch && bytes < BATCH_BYTES {
            match jobs.try_recv() {
                Ok(Job::Append(post)) => {
                    bytes += post.bytes();
                    batch.push(*post);
                }
                Ok(other) => return (batch, Some(other)),
                // Nothing waits; that the store is gone is found out by waiting.
                Err(_none) => break,
            }
        }
        (batch, None)
    }

    fn moment(&self) -> Moment {
        Moment {
            now: now(&self.clock),
            expiry: self.expiry.reading(),
        }
    }

    fn store(&mut self, batch: Vec<Post>) {
        match self.expect_room() {
            Ok(()) => {
                let batch = self.without_lost(batch);
                if !batch.is_empty() {
                    self.try_store(batch, Tries::default());
                }
            }
            Err(full) => self.refuse(batch, &full),
        }
    }

    /// Stores a batch; once more, if the disk was full and there is room now, or without what is
    /// damaged.
    fn try_store(&mut self, batch: Vec<Post>, tries: Tries) {
        let started = Instant::now();
        let moment = self.moment();
        let save = (self.watermark_moved() && self.saved_at.elapsed() >= SAVE_EVERY)
            || self.much_is_unsaved();
        let watermark = self.shared.published_to();
        let (rules, expiry, limits) = (&self.rules, &self.expiry, self.sweeper.limits());
        rules.dropped_early.set(0);
        let mut met = None;
        let outcomes = self.database.transaction(|connection, memory| {
            if save {
                save_state(connection, memory, watermark, expiry)?;
            }
            let mut open = Batch::begin(connection, memory, rules, limits, moment)?;
            let outcomes: Vec<_> = batch
                .iter()
                .enumerate()
                .map(|(place, post)| open.append(&post.new).inspect_err(|_| met = Some(place)))
                .collect::<rusqlite::Result<_>>()?;
            Ok((outcomes, open.finish()?))
        });
        match outcomes {
            Ok((outcomes, over)) => {
                over.into_iter()
                    .for_each(|channel| self.sweeper.note_over(channel));
                if save {
                    self.note_saved(watermark);
                    self.health.succeeded();
                }
                self.tell(batch, outcomes, moment, started);
            }
            Err(failure) if failure.is_damage() => self.store_around(batch, met, &failure, tries),
            // Something about one message that no check foresaw must not fail the others.
            Err(failure) if batch.len() > 1 && failure.may_be_one_message() => {
                batch.into_iter().for_each(|post| self.store(vec![post]));
            }
            Err(failure) => {
                let nothing_stored = matches!(failure, Failure::NothingStored(_));
                let has_room = self.note_failure(&failure);
                if !tries.with_room && nothing_stored && has_room && self.reserve.make() {
                    let tries = Tries {
                        with_room: true,
                        ..tries
                    };
                    self.try_store(batch, tries);
                } else {
                    self.refuse(batch, &failure.to_error());
                }
            }
        }
    }

    /// Answers a batch of which nothing was stored, or nobody knows.
    fn refuse(&self, batch: Vec<Post>, error: &StoreError) {
        let count = batch.len() as u64;
        self.shared.counters.failed.fetch_add(count, Relaxed);
        self.shared.counters.queued.fetch_sub(count, Relaxed);
        for post in batch {
            answer(post.reply, Err(error.clone()));
        }
    }

    /// Counts and answers a batch that is committed.
    fn tell(
        &mut self,
        batch: Vec<Post>,
        outcomes: Vec<Result<Appended, StoreError>>,
        moment: Moment,
        started: Instant,
    ) {
        let mut stored = 0;
        for (post, outcome) in batch.iter().zip(&outcomes) {
            match outcome {
                Ok(Appended::Stored {
                    event, position, ..
                }) => {
                    stored += 1;
                    let newest = &self.shared.counters.newest;
                    newest.store(position.offset(), Relaxed);
                    self.bytes_since_checkpoint += event.len() + MESSAGE_BYTES;
                    if key_of(&post.new).is_some() {
                        self.rules.shares.add(&post.new, moment.expiry);
                    }
                }
                Ok(Appended::Repeated { .. }) => {
                    self.shared.counters.repeated.fetch_add(1, Relaxed);
                }
                Err(error) => self.shared.counters.count_refused(error),
            }
        }
        // A batch of repeats wrote nothing, and shows nothing about the disk.
        if stored > 0 {
            self.health.succeeded();
            self.bytes_since_checkpoint += COMMIT_BYTES;
            self.shared.counters.count_commit(stored, started.elapsed());
            self.shared
                .follower
                .tell(|| committed(&batch, &outcomes, moment.now));
        }
        let early = self.rules.dropped_early.get();
        self.shared
            .counters
            .keys_dropped_early
            .fetch_add(early, Relaxed);
        self.note_keys();
        self.shared
            .counters
            .queued
            .fetch_sub(batch.len() as u64, Relaxed);
        for (post, outcome) in batch.into_iter().zip(outcomes) {
            answer(post.reply, outcome);
        }
        if self.bytes_since_checkpoint >= self.checkpoint_bytes {
            self.ask_checkpoint();
        }
    }

    fn note_keys(&mut self) {
        if let Some(memory) = self.database.memory() {
            // A range never ends before it begins.
            let count = memory.keys.end - memory.keys.start;
            self.shared
                .counters
                .keys
                .store(u64::try_from(count).unwrap_or(0), Relaxed);
        }
    }

    fn new_epoch(&mut self) -> Result<u64, StoreError> {
        let now = now(&self.clock);
        self.database
            .transaction(|connection, memory| begin_epoch(connection, memory, now))
            .inspect(|_| {
                self.checkpointer.ask();
                self.lost.forget();
            })
            .map_err(|failure| {
                let error = failure.to_error();
                self.health.failed(&error);
                error
            })
    }

    /// Saves what is not saved yet. The mark is settled, and the connection closed, when the fields
    /// go.
    fn finish(mut self) {
        self.save();
        self.shared.follower.let_go();
        // What is left to do may need it.
        self.reserve.release();
        self.checkpointer.ask();
        self.checkpointer.stop();
        // The last connection to go folds the write-ahead log into the database.
    }
}

fn committed(
    batch: &[Post],
    outcomes: &[Result<Appended, StoreError>],
    committed_at: u64,
) -> Vec<Unpublished> {
    batch
        .iter()
        .zip(outcomes)
        .filter_map(|(post, outcome)| match outcome {
            Ok(Appended::Stored {
                event, position, ..
            }) => Some(Unpublished {
                position: *position,
                channel: post.new.channel,
                event: event.clone(),
                committed_at,
            }),
            _ => None,
        })
        .collect()
}
