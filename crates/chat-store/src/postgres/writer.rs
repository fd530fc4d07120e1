//! The task that writes: whatever arrived while one transaction committed goes into the next.
//!
//! While its connection is away it makes a new one, again and again. Posts wait for a moment, since
//! a server that restarts is soon back, and then fail at once until it is there.

mod attempt;
mod rescue;
mod settle;
mod store;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use service_kit::log_limit::Working;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::attempt::Done;
use super::connection::Connector;
use super::failure::Failure;
use super::numbers::to_stored_number;
use super::schema;
use super::session::{Params, Session};
use super::shared::Shared;
use super::statements::{LEAVE, OFTEN, PROBE, RENEW};
use crate::key_shares::KeyShares;
use crate::queue::{BATCH_BYTES, Post, Reply, answer};
use crate::{Position, StoreError};

/// How soon a watermark that moved is saved if no batch takes it along: others ask the database
/// what is not yet published.
const SAVE_AFTER: Duration = Duration::from_millis(250);
/// How long a success of writing is believed.
const FRESH: Duration = Duration::from_secs(10);
/// Bytes that a probe asks of a disk that was full: room for some of the largest messages.
const ROOM: i32 = 256 << 10;
/// The pause before the second attempt to connect; it doubles from one to the next.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

pub(super) struct Writer {
    connector: Connector,
    /// Whose lane: one number for each open store. Its lease in milliseconds.
    us: Uuid,
    lease: f64,
    shared: Arc<Shared>,
    posts: mpsc::UnboundedReceiver<Box<Post>>,
    /// Somebody wants to know whether the store can write.
    checks: mpsc::UnboundedReceiver<Reply<()>>,
    stop: CancellationToken,
    mark: watch::Receiver<Option<Position>>,
    /// Is told of channels that have too many events.
    too_long: mpsc::Sender<i64>,
    shares: KeyShares,
    /// 0 before the first.
    lane: i32,
    /// The highest position that may have been seen of each lane of this process, on any server.
    seen: HashMap<i32, i64>,
    /// The batch that met the end of the last connection.
    pending: Option<Pending>,
    /// Since when there is no connection, and why.
    down_since: Instant,
    down_reason: String,
    /// When the watermark was first seen to have moved since it was saved.
    moved_at: Option<Instant>,
    next_renewal: Instant,
    next_rescue: Instant,
    last_success: Option<Instant>,
    lacks_room: bool,
    /// What the log says of that.
    told: Working,
}

/// What the writer is asked: posts, whether it can write, and to end.
pub(super) type Asked = (
    mpsc::UnboundedReceiver<Box<Post>>,
    mpsc::UnboundedReceiver<Reply<()>>,
    CancellationToken,
);

/// A batch whose connection was lost.
struct Pending {
    posts: Vec<Post>,
    /// What it would have become if COMMIT was sent, until that is judged; otherwise nothing was
    /// stored.
    undecided: Option<Box<Done>>,
}

/// The connection is of no use any more, and why.
struct Lost(String);

impl Writer {
    pub(super) fn new(
        connector: Connector,
        shared: Arc<Shared>,
        (posts, checks, stop): Asked,
        too_long: mpsc::Sender<i64>,
    ) -> Self {
        let now = Instant::now();
        Self {
            us: Uuid::new_v4(),
            lease: connector.options.timing.lease.as_secs_f64() * 1000.0,
            shares: KeyShares::new(&connector.options.keys),
            connector,
            mark: shared.mark.subscribe(),
            shared,
            posts,
            checks,
            stop,
            too_long,
            lane: 0,
            seen: HashMap::new(),
            pending: None,
            down_since: now,
            down_reason: String::new(),
            moved_at: None,
            next_renewal: now,
            next_rescue: now,
            last_success: None,
            lacks_room: false,
            told: Working::default(),
        }
    }

    /// A connection whose lane is ours, if there is one to be had.
    pub(super) async fn connect(&mut self) -> Result<Session, Failure> {
        let session = schema::connect(&self.connector, &OFTEN).await?;
        self.settle(&session).await?;
        Ok(session)
    }

    /// Works until it is told to close, or nobody is left to ask. Without a first connection it goes
    /// on trying.
    pub(super) async fn run(mut self, mut session: Option<Session>) {
        loop {
            if session.is_none() {
                session = self.connect_again().await;
            }
            let Some(up) = session.take() else { break };
            let Err(Lost(reason)) = self.serve(&up).await else {
                let params: Params<'_> = &[&self.lane, &self.us, &self.watermark()];
                if let Err(failure) = up.rows(LEAVE, params).await {
                    // Its lease runs out.
                    tracing::debug!(reason = failure.reason(), "the lane was not given up");
                }
                break;
            };
            tracing::warn!(
                database = self.connector.database,
                reason,
                "connection to PostgreSQL lost; connecting again"
            );
            (self.down_since, self.down_reason) = (Instant::now(), reason);
        }
        self.give_up_pending("the store was closed");
        self.shared.follower.let_go();
    }

    /// Tries until there is a connection; `None` if the store is closed first.
    async fn connect_again(&mut self) -> Option<Session> {
        let patient_until = self.down_since + self.connector.options.timing.patience;
        let mut next_pause = Duration::ZERO;
        loop {
            // Settling may take longer than anybody's patience: nothing looks at the time meanwhile.
            if Instant::now() >= patient_until {
                self.give_up_pending(&self.down_reason.clone());
            }
            let (connector, pause) = (self.connector.clone(), next_pause);
            let attempt = async {
                sleep(pause).await;
                schema::connect(&connector, &OFTEN).await
            };
            tokio::pin!(attempt);
            let arrived = loop {
                let is_patient = Instant::now() < patient_until;
                tokio::select! {
                    biased;
                    arrived = &mut attempt => break arrived,
                    () = sleep_until(patient_until), if is_patient => {
                        self.give_up_pending(&self.down_reason.clone());
                    }
                    () = self.stop.cancelled(), if !self.posts.is_closed() => self.posts.close(),
                    Some(reply) = self.checks.recv(), if !is_patient => {
                        answer(reply, Err(StoreError::unavailable(&self.down_reason)));
                    }
                    post = self.posts.recv(), if !is_patient => {
                        self.fail(vec![*post?], &StoreError::unavailable(&self.down_reason));
                    }
                }
            };
            let failure = match arrived {
                Ok(session) => match self.settle(&session).await {
                    Ok(()) => return Some(session),
                    Err(failure) => failure,
                },
                Err(failure) => failure,
            };
            let reason = failure.reason();
            if reason != self.down_reason {
                tracing::warn!(reason, "no connection to PostgreSQL");
                self.down_reason = reason;
            }
            next_pause = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        }
    }

    /// Works on one connection, until the store is closed.
    async fn serve(&mut self, session: &Session) -> Result<(), Lost> {
        // What is left was judged: it is not stored.
        if let Some(pending) = self.pending.take() {
            self.store(session, pending.posts).await?;
        }
        loop {
            let timer = self.next_timer();
            // The timer first: posts must not keep it from what is due.
            tokio::select! {
                biased;
                () = sleep_until(timer) => self.chores(session).await?,
                Ok(()) = self.mark.changed() => {
                    self.moved_at.get_or_insert_with(Instant::now);
                }
                // What was asked already is stored.
                () = self.stop.cancelled(), if !self.posts.is_closed() => self.posts.close(),
                Some(reply) = self.checks.recv() => {
                    let checked = self.check(session).await;
                    answer(reply, checked.clone().map_err(StoreError::from));
                    if let Err(failure) = checked {
                        self.bear(failure)?;
                    }
                }
                post = self.posts.recv() => {
                    let Some(post) = post else { return Ok(()) };
                    let batch = self.gather(*post);
                    self.store(session, batch).await?;
                }
            }
        }
    }

    /// Takes what waits already, up to the bounds.
    fn gather(&mut self, first: Post) -> Vec<Post> {
        let mut bytes = first.bytes();
        let mut batch = vec![first];
        while batch.len() < self.connector.options.batch && bytes < BATCH_BYTES {
            // If nothing waits; that the store is gone is found out by waiting.
            let Ok(post) = self.posts.try_recv() else {
                break;
            };
            bytes += post.bytes();
            batch.push(*post);
        }
        batch
    }

    /// When something is due.
    fn next_timer(&self) -> Instant {
        let due = self.next_renewal.min(self.next_rescue);
        let save = self.moved_at.map(|moved| moved + SAVE_AFTER);
        save.map_or(due, |save| save.min(due))
    }

    async fn chores(&mut self, session: &Session) -> Result<(), Lost> {
        let now = Instant::now();
        let saving = self.moved_at.is_some_and(|moved| moved + SAVE_AFTER <= now);
        if saving || self.next_renewal <= now {
            let mark = self.watermark();
            // That also shows that the store can write.
            let params: Params<'_> = &[&self.lane, &self.us, &self.lease, &mark];
            match session.rows(RENEW, params).await {
                Ok(renewed) if renewed.is_empty() => self.change_lane(session).await?,
                Ok(_) => self.note_saved(),
                Err(failure) => self.bear(failure)?,
            }
        }
        if self.next_rescue <= now {
            self.rescue(session).await?;
        }
        Ok(())
    }

    /// What is published in our lane.
    fn watermark(&self) -> i64 {
        let mark = self.shared.published_to();
        mark.map_or(0, |mark| to_stored_number(mark.offset()))
    }

    /// Positions of a lane may have been read by the outbox up to here. Not those of a batch that is
    /// still to be judged: the lane is raised to what was seen, which would pass for the batch.
    fn see(&mut self, lane: i32, pos: i64) {
        let seen = self.seen.entry(lane).or_default();
        *seen = pos.max(*seen);
    }

    fn note_saved(&mut self) {
        let now = Instant::now();
        self.moved_at = None;
        self.next_renewal = now + self.connector.options.timing.lease / 5;
        self.last_success = Some(now);
    }

    fn note_success(&mut self) {
        self.last_success = Some(Instant::now());
        self.lacks_room = false;
        if self.told.tells(true) {
            tracing::info!("the store can write again");
        }
    }

    /// Goes on after a failure, unless it was the connection.
    fn bear(&mut self, failure: Failure) -> Result<(), Lost> {
        match failure {
            Failure::Lost(reason) => return Err(Lost(reason)),
            // Told once: nothing is wrong with the connection, nor with what others post.
            damaged if damaged.is_damage() => {
                let damage = &self.shared.counters.damage;
                damage.note_database(&damaged.reason());
            }
            Failure::Refused(refusal) if refusal.is_lack_of_room() => {
                self.lacks_room = true;
                if self.told.tells(false) {
                    tracing::error!(reason = refusal.reason, "the store cannot write");
                }
            }
            other => tracing::warn!(reason = other.reason(), "the database refused a statement"),
        }
        // What failed is not tried again at once.
        let later = Instant::now() + self.connector.options.timing.lease / 5;
        self.next_renewal = self.next_renewal.max(later);
        self.moved_at = None;
        Ok(())
    }

    /// Whether the store can write: known from the last write, or tried.
    async fn check(&mut self, session: &Session) -> Result<(), Failure> {
        let fresh = self.last_success.is_some_and(|at| at.elapsed() < FRESH);
        if fresh && !self.lacks_room {
            return Ok(());
        }
        if self.lacks_room {
            session.rows(PROBE, &[&ROOM]).await?;
        }
        session.rows(PROBE, &[&0]).await?;
        self.note_success();
        Ok(())
    }

    fn give_up_pending(&mut self, reason: &str) {
        let Some(pending) = self.pending.take() else {
            return;
        };
        let error = match pending.undecided {
            Some(done) => {
                self.see(done.lane, done.last_pos);
                StoreError::OutcomeUnknown {
                    reason: reason.to_owned(),
                }
            }
            None => StoreError::unavailable(reason),
        };
        self.fail(pending.posts, &error);
    }
}
