//! A batch until its posts are answered, now or when a lost connection is back.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use tokio::time::{Instant, sleep};

use super::{
    Link, Pending, Post, Writer, answer,
    attempt::{Attempt, Done, Setback},
};
use crate::{
    Appended, StoreError, Unpublished,
    postgres::{failure::Failure, keeper::Chore, lane::Lane},
    sender_keys::key_of,
};

/// How often it is looked whether there is a segment to write to again.
const NEXT_SEGMENT: Duration = Duration::from_millis(20);

impl Writer {
    /// Stores posts in one transaction and answers them, now or when a lost connection is back.
    pub(super) async fn store(&mut self, posts: Vec<Post>) {
        let started = Instant::now();
        loop {
            let (Link::Up(link), Some(lane), Some(expiry)) =
                (&self.link, self.lane, self.shared.expiry.get())
            else {
                return self.wait_or_fail(posts, started);
            };
            let batch = Attempt {
                link,
                owner: &self.owner,
                lane,
                published_to: self.watermark(lane),
                options: &self.connector.options,
                expiry,
                shares: &self.shares,
                posts: &posts,
                started,
            };
            match batch.run().await {
                Ok(done) => {
                    if done.is_written {
                        self.see(lane, done.last_pos);
                        self.note_saved();
                        self.succeeded();
                    }
                    return self.tell(posts, done, true);
                }
                Err(Setback::Fenced) => {
                    if !self.change_lane().await {
                        return self.wait_or_fail(posts, started);
                    }
                }
                Err(Setback::Undecided(failure, undecided)) => {
                    self.pending = Some(Pending {
                        posts,
                        undecided: Some(*undecided),
                    });
                    return self.note_failure(&failure);
                }
                Err(Setback::Failed(Failure::Lost(reason))) => {
                    self.go_down(&reason);
                    return self.wait_or_fail(posts, started);
                }
                Err(Setback::Failed(Failure::Conflict(reason)))
                    if started.elapsed() < self.connector.options.statement_timeout =>
                {
                    tracing::debug!(reason, "batch tried again");
                }
                // Something about one message that no check foresaw must not fail the others.
                Err(Setback::Failed(Failure::Refused(refusal)))
                    if posts.len() > 1 && refusal.may_be_one_message() =>
                {
                    // By halves: those that have nothing to do with it stay together.
                    let mut first = posts;
                    let rest = first.split_off(first.len() / 2);
                    for half in [first, rest] {
                        Box::pin(self.store(half)).await;
                    }
                    return;
                }
                Err(Setback::Full(segment)) => {
                    if self.keeper.try_send(Chore::Leave(segment)).is_err() {
                        tracing::debug!(segment, "the keeper has much to do; it is asked again");
                    }
                    if started.elapsed() < self.connector.options.timing.patience {
                        sleep(NEXT_SEGMENT).await;
                        continue;
                    }
                    let reason = format!("segment {segment} of the log takes nothing more");
                    return self.fail(posts, &StoreError::damaged(reason));
                }
                // Told once: nothing is wrong with the connection, nor with what others post.
                Err(Setback::Failed(failure)) if failure.is_damage() => {
                    let damage = &self.shared.counters.damage;
                    damage.note_database(failure.reason());
                    return self.fail(posts, &failure.to_error());
                }
                Err(Setback::Failed(failure)) => {
                    self.note_failure(&failure);
                    return self.fail(posts, &failure.to_error());
                }
            }
        }
    }

    /// Positions of a lane may have been read by the outbox up to here. Not those of a batch that is
    /// still to be judged: the lane is raised to what was seen, which would pass for the batch.
    pub(super) fn see(&mut self, lane: Lane, pos: i64) {
        let seen = self.seen.entry(lane.number).or_default();
        *seen = pos.max(*seen);
    }

    /// What was not stored waits for the connection, once and not for long.
    fn wait_or_fail(&mut self, posts: Vec<Post>, started: Instant) {
        let patience = self.connector.options.timing.patience;
        if self.pending.is_none() && started.elapsed() < patience && self.is_newly_down(patience) {
            self.pending = Some(Pending {
                posts,
                undecided: None,
            });
        } else {
            self.fail(posts, &self.unavailable());
        }
    }

    fn is_newly_down(&self, patience: std::time::Duration) -> bool {
        matches!(&self.link, Link::Down(down) if down.since.elapsed() < patience)
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
            if self.keeper.try_send(Chore::Shorten(channel)).is_err() {
                break;
            }
        }
        counters.queued.fetch_sub(posts.len() as u64, Relaxed);
        for (post, outcome) in posts.into_iter().zip(done.outcomes) {
            answer(post.reply, outcome);
        }
    }
}
