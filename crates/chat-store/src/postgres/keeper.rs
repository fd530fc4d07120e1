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
use super::connection::Connector;
use super::failure::Failure;
use super::numbers::{from_stored_number, to_stored_number};
use super::schema;
use super::session::{Params, Session};
use super::shared::Shared;
use crate::StoreError;
use crate::expiry_clock::{ExpiryClock, milliseconds};
use crate::queue::{Reply, answer, closed};
use crate::retention::EMPTY_FOR;

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

pub(super) struct Keeper {
    connector: Connector,
    shared: Arc<Shared>,
    /// Channels that the writer has found to have too many events.
    too_long: mpsc::Receiver<i64>,
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
        too_long: mpsc::Receiver<i64>,
        asked: mpsc::Receiver<Reply<u64>>,
    ) -> Self {
        Self {
            connector,
            shared,
            too_long,
            asked,
            session: None,
            sweep: Sweep::new(EMPTY_FOR),
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
                Some(channel) = self.too_long.recv() => {
                    stop.run_until_cancelled(self.shorten(channel)).await
                }
                Some(reply) = self.asked.recv() => {
                    self.in_haste = true;
                    let all = stop.run_until_cancelled(self.everything()).await;
                    self.in_haste = false;
                    let removed = match all {
                        Some(Ok(removed)) => Ok(removed),
                        Some(Err(failure)) => Err(StoreError::unavailable(failure.reason())),
                        None => Err(closed()),
                    };
                    answer(reply, removed);
                    None
                }
            };
            self.note(done);
        }
    }

    fn note(&mut self, done: Option<Result<u64, Failure>>) {
        match done {
            Some(Err(failed)) if !std::mem::replace(&mut self.is_failing, true) => {
                tracing::warn!(reason = failed.reason(), "retention has to wait");
            }
            Some(Ok(_)) => self.is_failing = false,
            Some(Err(_)) | None => {}
        }
    }

    /// What is due every now and then.
    async fn round(&mut self) -> Result<u64, Failure> {
        self.keep_clock().await?;
        // One that is not possible now is no reason against the others.
        let expired = self.expire_segments().await;
        let keys = self.expire_keys().await;
        self.sweep.begin_if_due();
        let swept = self.sweep(SWEEP_STEPS).await;
        keys?;
        Ok(expired? + swept?)
    }

    /// Everything that has expired, at once.
    async fn everything(&mut self) -> Result<u64, Failure> {
        let expired = self.expire_segments().await?;
        self.expire_keys().await?;
        self.sweep.begin();
        Ok(expired + self.sweep(usize::MAX).await?)
    }

    async fn sweep(&mut self, mut steps: usize) -> Result<u64, Failure> {
        let mut removed = 0;
        // Before the writer has told the time there is nothing to judge by.
        while steps > 0 && self.sweep.seen.is_some() && self.reading().is_some() {
            removed += self.sweep_some().await?;
            steps -= 1;
            self.pause().await;
        }
        Ok(removed)
    }

    /// The connection; made anew if it was lost.
    async fn session(&mut self) -> Result<&Session, Failure> {
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

    /// Saves what the expiry clock shows, and looks how large all tables are.
    async fn keep_clock(&mut self) -> Result<(), Failure> {
        let Some(saved) = self.shared.expiry.get().map(ExpiryClock::save) else {
            return Ok(());
        };
        let [reading, saved_at] = [saved.reading, saved.saved_at].map(to_stored_number);
        let session = self.session().await?;
        let keep = "SELECT keep_clock($1, $2)";
        let bytes = session.row(keep, &[&reading, &saved_at]).await?.get(0);
        let bytes = from_stored_number(bytes);
        self.shared.bytes.store(bytes, Relaxed);
        Ok(())
    }

    async fn expire_keys(&mut self) -> Result<(), Failure> {
        let max_age = to_stored_number(milliseconds(self.connector.options.keys.max_age));
        let Some(reading) = self.reading() else {
            return Ok(());
        };
        let expire = "SELECT expire_keys($1, $2)";
        let step: Params<'_> = &[&(reading - max_age), &STEP_KEYS];
        while self.session().await?.row(expire, step).await?.get(0) {
            self.pause().await;
        }
        Ok(())
    }

    async fn pause(&self) {
        if !self.in_haste {
            sleep(STEP_PAUSE).await;
        }
    }
}
