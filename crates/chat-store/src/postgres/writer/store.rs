//! A batch until its posts are answered, now or when a lost connection is back.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::attempt::{Done, Setback};
use super::{Lost, Pending, Post, Writer, answer};
use crate::expiry_clock::ExpiryClock;
use crate::postgres::failure::Failure;
use crate::postgres::numbers::to_stored_number;
use crate::postgres::session::{Params, Session};
use crate::postgres::statements::TURN;
use crate::sender_keys::key_of;
use crate::{Appended, StoreError, Unpublished};

/// How often it is looked whether there is a segment to write to again.
const NEXT_SEGMENT: Duration = Duration::from_millis(20);

impl Writer {
    /// Stores posts in one transaction and answers them. If the connection is lost, they wait for the
    /// next one.
    pub(super) async fn store(&mut self, session: &Session, posts: Vec<Post>) -> Result<(), Lost> {
        let started = Instant::now();
        loop {
            let failure = match self.attempt(session, &posts, started).await {
                Ok(done) => {
                    if done.is_written {
                        self.see(done.lane, done.last_pos);
                        self.note_saved();
                        self.note_success();
                    }
                    self.tell(posts, done, true);
                    return Ok(());
                }
                Err(Setback::Undecided(reason, done)) => {
                    let undecided = Some(done);
                    self.pending = Some(Pending { posts, undecided });
                    return Err(Lost(reason));
                }
                Err(Setback::Fenced) => match self.enter(session).await {
                    Ok(()) => continue,
                    Err(failure) => failure,
                },
                Err(Setback::Full(segment)) => match self.leave_segment(session, segment).await {
                    Ok(()) if started.elapsed() < self.connector.options.timing.patience => {
                        continue;
                    }
                    Ok(()) => Failure::damaged(format!("segment {segment} of the log")),
                    Err(failure) => failure,
                },
                Err(Setback::Failed(failure)) => failure,
            };
            match failure {
                Failure::Lost(reason) => {
                    self.wait_or_fail(posts, started, &reason);
                    return Err(Lost(reason));
                }
                Failure::Conflict(reason)
                    if started.elapsed() < self.connector.options.statement_timeout =>
                {
                    tracing::debug!(reason, "batch tried again");
                }
                // Something about one message that no check foresaw must not fail the others.
                Failure::Refused(refusal) if posts.len() > 1 && refusal.may_be_one_message() => {
                    return self.store_halves(session, posts).await;
                }
                failure => {
                    self.fail(posts, &failure.clone().into());
                    return self.bear(failure);
                }
            }
        }
    }

    /// Begins a new segment, because nothing can be added to this one; or lets others do it.
    async fn leave_segment(&self, session: &Session, segment: i32) -> Result<(), Failure> {
        let reading = self.shared.expiry.get().map_or(0, ExpiryClock::reading);
        let reading = to_stored_number(reading);
        let broken = Some(segment);
        let params: Params<'_> = &[&reading, &0_i64, &0_i64, &0_i64, &broken];
        match session.row(TURN, params).await {
            Ok(turned) if turned.get(0) => {
                let why = "the log goes on in a new segment, for this one is damaged";
                tracing::error!(segment, why);
            }
            Ok(_) | Err(Failure::Conflict(_)) => sleep(NEXT_SEGMENT).await,
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    async fn store_halves(&mut self, session: &Session, mut posts: Vec<Post>) -> Result<(), Lost> {
        let rest = posts.split_off(posts.len() / 2);
        if let Err(lost) = Box::pin(self.store(session, posts)).await {
            self.wait_or_fail(rest, Instant::now(), &lost.0);
            return Err(lost);
        }
        Box::pin(self.store(session, rest)).await
    }

    /// What was not stored waits for the next connection, once and not for long.
    fn wait_or_fail(&mut self, posts: Vec<Post>, started: Instant, reason: &str) {
        if self.pending.is_none() && started.elapsed() < self.connector.options.timing.patience {
            let undecided = None;
            self.pending = Some(Pending { posts, undecided });
        } else {
            self.fail(posts, &StoreError::unavailable(reason));
        }
    }

    /// Counts and answers a batch that is committed.
    pub(super) fn tell(&mut self, posts: Vec<Post>, done: Done, follower: bool) {
        let counters = &self.shared.counters;
        let mut committed = Vec::with_capacity(posts.len());
        for (post, outcome) in posts.iter().zip(&done.outcomes) {
            match outcome {
                Ok(Appended::Stored {
                    event, position, ..
                }) => {
                    committed.push(Unpublished {
                        position: *position,
                        channel: post.new.channel,
                        event: event.clone(),
                        committed_at: done.committed_at,
                    });
                    if key_of(&post.new).is_some() {
                        self.shares.add(&post.new, done.expiry);
                    }
                }
                Ok(Appended::Repeated { .. }) => {
                    counters.repeated.fetch_add(1, Relaxed);
                }
                Err(error) => counters.count_refused(error),
            }
        }
        if let Some(last) = committed.last() {
            counters.newest.fetch_max(last.position.offset(), Relaxed);
            counters.count_commit(committed.len() as u64, done.started.elapsed());
            if follower {
                self.shared.follower.tell(|| committed);
            }
        }
        if let Some(keys) = done.keys {
            counters.keys.store(keys, Relaxed);
        }
        counters
            .keys_dropped_early
            .fetch_add(done.keys_dropped_early, Relaxed);
        for channel in done.too_long {
            // One that finds no room is told of again by a later event.
            if self.too_long.try_send(channel).is_err() {
                break;
            }
        }
        counters.queued.fetch_sub(posts.len() as u64, Relaxed);
        for (post, outcome) in posts.into_iter().zip(done.outcomes) {
            answer(post.reply, outcome);
        }
    }

    pub(super) fn fail(&self, posts: Vec<Post>, error: &StoreError) {
        let count = posts.len() as u64;
        self.shared.counters.failed.fetch_add(count, Relaxed);
        self.shared.counters.queued.fetch_sub(count, Relaxed);
        for post in posts {
            answer(post.reply, Err(error.clone()));
        }
    }
}
