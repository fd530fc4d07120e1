//! The task that removes what has expired, in steps so small that posts do not notice.

mod segments;
mod trim;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use self::trim::Sweep;
use super::connection::{Connector, NoSession};
use super::numbers::{from_stored_number, to_stored_number};
use super::schema;
use super::session::Session;
use super::shared::Shared;
use crate::expiry_clock::{ExpiryClock, milliseconds};
use crate::queue::{Reply, answer, closed};

/// Events of one channel that a step removes.
pub(super) const STEP_EVENTS: u64 = 500;
/// Channels that one step looks at or changes.
const STEP_CHANNELS: i64 = 500;
/// Keys that one step removes.
const STEP_KEYS: i64 = 1_000;
/// How often it looks for something to do, and saves the expiry clock.
const EVERY: Duration = Duration::from_secs(10);
/// Steps of the sweep over all channels in each round.
const SWEEP_STEPS: usize = 20;
/// The pause between steps while there is more to remove.
const STEP_PAUSE: Duration = Duration::from_millis(20);

/// What the writer finds to be done.
#[derive(Debug, Clone, Copy)]
pub(super) enum Chore {
    /// A channel has too many events.
    Shorten(i64),
    /// Nothing can be added to a segment: its next free page is damaged.
    Leave(i32),
}

pub(super) struct Keeper {
    connector: Connector,
    shared: Arc<Shared>,
    /// What the writer has found.
    chores: mpsc::Receiver<Chore>,
    /// Somebody wants everything removed that has expired.
    asked: mpsc::Receiver<Reply<u64>>,
    session: Option<Session>,
    sweep: Sweep,
    /// Segments whose events nobody sees any more, and whose tables are still there because somebody
    /// holds them for long.
    held_up: BTreeSet<i32>,
    /// Whether to go on at once, without pauses.
    in_haste: bool,
    is_failing: bool,
}

impl Keeper {
    pub(super) fn new(
        connector: Connector,
        shared: Arc<Shared>,
        chores: mpsc::Receiver<Chore>,
        asked: mpsc::Receiver<Reply<u64>>,
    ) -> Self {
        Self {
            connector,
            shared,
            chores,
            asked,
            session: None,
            sweep: Sweep::new(),
            held_up: BTreeSet::new(),
            in_haste: false,
            is_failing: false,
        }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut next_round = Instant::now() + EVERY;
        loop {
            let done = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = sleep_until(next_round) => {
                    let round = stop.run_until_cancelled(self.round()).await;
                    next_round = Instant::now() + EVERY;
                    round
                }
                Some(chore) = self.chores.recv() => {
                    stop.run_until_cancelled(self.work(chore)).await
                }
                Some(reply) = self.asked.recv() => {
                    let all = stop.run_until_cancelled(self.everything()).await;
                    let removed = match all {
                        Some(Ok(removed)) => Ok(removed),
                        Some(Err(error)) => Err(error.to_error()),
                        None => Err(closed()),
                    };
                    answer(reply, removed);
                    None
                }
            };
            self.note(done);
        }
    }

    async fn work(&mut self, chore: Chore) -> Result<u64, NoSession> {
        match chore {
            Chore::Shorten(channel) => self.shorten(channel).await,
            Chore::Leave(segment) => self.leave(segment).await,
        }
    }

    fn note(&mut self, done: Option<Result<u64, NoSession>>) {
        match done {
            Some(Err(failed)) if !std::mem::replace(&mut self.is_failing, true) => {
                let error = failed.to_error();
                tracing::warn!(%error, "retention has to wait");
            }
            Some(Ok(_)) => self.is_failing = false,
            Some(Err(_)) | None => {}
        }
    }

    /// What is due every now and then.
    async fn round(&mut self) -> Result<u64, NoSession> {
        self.save_clock().await?;
        // One that is not possible now is no reason against the others.
        let expired = self.expire_segments().await;
        let keys = self.expire_keys().await;
        self.sweep.begin_if_due();
        let swept = self.sweep_for_a_while().await;
        let measured = self.measure().await;
        let removed = expired? + swept?;
        keys.and(measured)?;
        Ok(removed)
    }

    /// Everything that has expired, at once.
    async fn everything(&mut self) -> Result<u64, NoSession> {
        self.in_haste = true;
        let removed = self.everything_now().await;
        self.in_haste = false;
        removed
    }

    async fn everything_now(&mut self) -> Result<u64, NoSession> {
        let mut removed = self.expire_segments().await?;
        self.expire_keys().await?;
        self.sweep.begin();
        // Before the writer has told the time there is nothing to judge by.
        while self.sweep.is_under_way() && self.reading().is_some() {
            removed += self.sweep_some().await?;
        }
        Ok(removed)
    }

    async fn sweep_for_a_while(&mut self) -> Result<u64, NoSession> {
        let mut removed = 0;
        for _ in 0..SWEEP_STEPS {
            removed += self.sweep_some().await?;
            if !self.sweep.is_under_way() {
                break;
            }
            self.pause().await;
        }
        Ok(removed)
    }

    /// The connection; made anew if it was lost.
    async fn session(&mut self) -> Result<&Session, NoSession> {
        let usable = self.session.take().filter(|session| !session.is_closed());
        let session = match usable {
            Some(session) => session,
            None => schema::connect(&self.connector, &[]).await?,
        };
        Ok(self.session.insert(session))
    }

    /// The reading of the expiry clock, once the writer knows it.
    fn reading(&self) -> Option<i64> {
        let clock = self.shared.expiry.get();
        clock.map(ExpiryClock::reading).map(to_stored_number)
    }

    async fn save_clock(&mut self) -> Result<(), NoSession> {
        let Some(saved) = self.shared.expiry.get().map(ExpiryClock::save) else {
            return Ok(());
        };
        let (reading, saved_at) = (
            to_stored_number(saved.reading),
            to_stored_number(saved.saved_at),
        );
        // Of several processes the one whose clock shows most: it saw the most time pass.
        self.session()
            .await?
            .rows(
                "UPDATE state SET expiry_clock = $1, expiry_saved_at = $2 WHERE expiry_clock <= $1",
                &[&reading, &saved_at],
            )
            .await?;
        Ok(())
    }

    async fn expire_keys(&mut self) -> Result<(), NoSession> {
        let max_age = to_stored_number(milliseconds(self.connector.options.keys.max_age));
        let Some(cutoff) = self.reading().map(|now| now - max_age) else {
            return Ok(());
        };
        loop {
            // A key that a post is renewing is not waited for.
            let gone = self
                .session()
                .await?
                .rows(
                    "WITH gone AS (DELETE FROM sender_keys WHERE n = ANY(ARRAY(
                        SELECT n FROM (SELECT n, kept_at FROM sender_keys ORDER BY n LIMIT $1
                            FOR UPDATE SKIP LOCKED) oldest
                        WHERE kept_at <= $2)) RETURNING 1)
                     SELECT count(*) FROM gone",
                    &[&STEP_KEYS, &cutoff],
                )
                .await?;
            if gone[0].get::<_, i64>(0) < STEP_KEYS {
                return Ok(());
            }
            self.pause().await;
        }
    }

    async fn measure(&mut self) -> Result<(), NoSession> {
        let rows = self
            .session()
            .await?
            .rows(
                "SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class
                 WHERE relnamespace = 'hark'::regnamespace AND relkind = 'r'",
                &[],
            )
            .await?;
        let bytes = from_stored_number(rows[0].get(0));
        self.shared.bytes.store(bytes, Relaxed);
        Ok(())
    }

    async fn pause(&self) {
        if !self.in_haste {
            sleep(STEP_PAUSE).await;
        }
    }
}
