//! The log is cut into segments by age and size, and what is old goes a whole segment at a time:
//! that leaves no dead rows behind, however many there were.
//!
//! A segment that has expired goes in two parts. First the floors of its channels are raised, some
//! at a time; from then on nobody sees its events. Then its table is dropped. After a crash in
//! between, the same is done again from the start, and finds the floors raised.
//!
//! A table that somebody reads for long (a dump, which holds all of them) stays until that is over:
//! whoever waited for it would hold up all posts. Events expire in the meantime all the same.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Keeper, NoSession, STEP_CHANNELS};
use crate::expiry_clock::milliseconds;
use crate::postgres::failure::Failure;
use crate::postgres::numbers::{from_stored_number, to_stored_number};
use crate::postgres::session::{Params, Session};
use crate::retention::EARLY;

/// How long transactions that hold a table are waited for before it is dropped, and how often it is
/// looked whether they are over.
const PATIENCE: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Into how many segments the log of the longest age, or of the largest size, is cut.
const SEGMENTS: u64 = 16;

/// The transactions that hold the log or a segment's table.
const HOLDERS: &str = "
    SELECT DISTINCT virtualtransaction FROM pg_locks
    WHERE locktype = 'relation' AND granted AND pid <> pg_backend_pid()
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND relation IN ('hark.log'::regclass, to_regclass(format('hark.log_%s', $1::integer)))";

/// What became of a segment that has expired, or of its table.
enum Step {
    /// So many events are hidden, or its table is gone.
    Done(u64),
    /// Somebody holds it, or a channel of it.
    HeldUp,
    /// Another process is at it.
    ByAnother,
}

impl Keeper {
    /// Begins a new segment if it is time, and removes those that have expired.
    pub(super) async fn expire_segments(&mut self) -> Result<u64, NoSession> {
        let Some(reading) = self.reading() else {
            return Ok(0);
        };
        if let Err(Failure::Conflict(reason)) = self.turn_segment(reading, None).await? {
            // It is no reason to keep what has expired.
            tracing::debug!(reason, "no new segment yet");
        }
        let retention = self.connector.options.retention;
        let max_age = to_stored_number(milliseconds(retention.max_age));
        let max_bytes = to_stored_number(retention.max_bytes);
        let early = to_stored_number(milliseconds(EARLY));
        let expired = "SELECT n, is_early FROM expired_segments($1, $2, $3, $4)";
        let session = self.session().await?;
        let expired = session
            .rows(expired, &[&reading, &max_age, &max_bytes, &early])
            .await?;
        let expired: Vec<(i32, bool)> = expired.iter().map(|r| (r.get(0), r.get(1))).collect();
        self.held_up
            .retain(|held| expired.iter().any(|(segment, _)| segment == held));
        let mut removed = 0;
        let was_held_up = !self.held_up.is_empty();
        // For all of them together: where one dump holds one, it holds all.
        let patience = Instant::now() + PATIENCE;
        for (segment, is_early) in expired {
            if !self.held_up.contains(&segment) {
                match self.hide_segment(segment, reading).await? {
                    Step::Done(events) => {
                        tracing::info!(segment, events, "a segment of the log has expired");
                        if is_early {
                            self.shared.counters.count_early(events);
                        }
                        removed += events;
                        self.held_up.insert(segment);
                    }
                    // The next ones cover what it has of their channels.
                    Step::HeldUp => continue,
                    Step::ByAnother => return Ok(removed),
                }
            }
            match self.drop_segment(segment, patience).await? {
                Step::Done(_) => {
                    self.held_up.remove(&segment);
                }
                Step::HeldUp => {}
                Step::ByAnother => return Ok(removed),
            }
        }
        if !self.held_up.is_empty() && !was_held_up {
            tracing::warn!(
                "somebody reads the tables of the log for long (a dump?): what has expired is no \
                 longer shown, and its disk space is given back when that is over"
            );
        }
        Ok(removed)
    }

    /// Begins a new segment if it is time, or because nothing can be added to this one. What met
    /// another's lock is no failure of the session.
    async fn turn_segment(
        &mut self,
        reading: i64,
        broken: Option<i32>,
    ) -> Result<Result<bool, Failure>, NoSession> {
        let retention = self.connector.options.retention;
        let max_age = milliseconds(retention.max_age);
        let part_age = to_stored_number(max_age / SEGMENTS);
        let part_bytes = to_stored_number(retention.max_bytes / SEGMENTS);
        let max_age = to_stored_number(max_age);
        let turn = "SELECT turn_segment($1, $2, $3, $4, $5)";
        let params: Params<'_> = &[&reading, &max_age, &part_age, &part_bytes, &broken];
        match self.session().await?.row(turn, params).await {
            Ok(row) => {
                let begun = row.get(0);
                if begun {
                    tracing::info!("a new segment of the log");
                }
                Ok(Ok(begun))
            }
            Err(conflict @ Failure::Conflict(_)) => Ok(Err(conflict)),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Begins a new segment because nothing can be added to this one.
    pub(super) async fn leave(&mut self, segment: i32) -> Result<u64, NoSession> {
        let Some(reading) = self.reading() else {
            return Ok(0);
        };
        if let Ok(true) = self.turn_segment(reading, Some(segment)).await? {
            tracing::error!(
                segment,
                "the log goes on in a new segment, for this one is damaged"
            );
        }
        Ok(0)
    }

    /// Hides what a segment holds.
    async fn hide_segment(&mut self, segment: i32, reading: i64) -> Result<Step, NoSession> {
        const HIDE: &str = "SELECT raised, last, busy FROM hide_segment($1, $2, $3, $4, $5, $6)";
        let (mut next, mut care, mut hidden, mut is_locked) = (Some(0), false, 0, false);
        // Channels that are busy are waited for one by one, so that nothing is held meanwhile.
        let mut busy: Vec<i64> = Vec::new();
        loop {
            let (after, most, waits) = match (busy.pop(), next) {
                (Some(channel), _) => (channel - 1, 1, true),
                (None, Some(after)) => (after, STEP_CHANNELS, false),
                (None, None) if is_locked => return Ok(Step::HeldUp),
                (None, None) => return Ok(Step::Done(hidden)),
            };
            let params: Params<'_> = &[&segment, &after, &most, &waits, &care, &reading];
            match self.session().await?.rows(HIDE, params).await {
                Ok(rows) => {
                    let Some(row) = rows.first() else {
                        return Ok(Step::ByAnother);
                    };
                    let raised = from_stored_number(row.get(0));
                    hidden += raised;
                    self.shared.counters.expired.fetch_add(raised, Relaxed);
                    if !waits {
                        (next, busy) = (row.get(1), row.get(2));
                    }
                }
                Err(Failure::Conflict(_)) if waits => is_locked = true,
                Err(Failure::Conflict(_)) => return Ok(Step::HeldUp),
                Err(failure) if failure.is_damage() => {
                    self.shared.counters.damage.note_database(failure.reason());
                    if std::mem::replace(&mut care, true) {
                        // It stays, and is tried again in the next round; others may be removed.
                        return Ok(Step::HeldUp);
                    }
                    next = Some(0);
                    busy.clear();
                }
                Err(failure) => return Err(failure.into()),
            }
            self.pause().await;
        }
    }

    /// Drops the table of a segment, unless somebody reads it for long.
    async fn drop_segment(&mut self, segment: i32, patience: Instant) -> Result<Step, NoSession> {
        let session = self.session().await?;
        // Batches and pages are soon over, and others come; one that stays is not waited for.
        let mut still = holders(session, segment).await?;
        while !still.is_empty() {
            if Instant::now() >= patience {
                return Ok(Step::HeldUp);
            }
            sleep(LOOK_AGAIN).await;
            let now = holders(session, segment).await?;
            still.retain(|holder| now.contains(holder));
        }
        match session.row("SELECT drop_segment($1)", &[&segment]).await {
            Ok(row) if row.get(0) => Ok(Step::Done(0)),
            Ok(_) => Ok(Step::ByAnother),
            // Somebody came in between.
            Err(Failure::Conflict(_)) => Ok(Step::HeldUp),
            Err(failure) => Err(failure.into()),
        }
    }
}

async fn holders(session: &Session, segment: i32) -> Result<Vec<String>, Failure> {
    let rows = session.rows(HOLDERS, &[&segment]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
