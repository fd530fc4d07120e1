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

use tokio::time::Instant;

use super::{Keeper, STEP_CHANNELS};
use crate::expiry_clock::milliseconds;
use crate::postgres::failure::Failure;
use crate::postgres::numbers::{from_stored_number, to_stored_number};
use crate::postgres::session::Params;
use crate::postgres::statements::TURN;
use crate::retention::EARLY;

/// How long transactions that hold a table are waited for before it is dropped.
const PATIENCE: Duration = Duration::from_secs(1);
/// Into how many segments the log of the longest age, or of the largest size, is cut.
const SEGMENTS: u64 = 16;

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
    pub(super) async fn expire_segments(&mut self) -> Result<u64, Failure> {
        let Some(reading) = self.reading() else {
            return Ok(0);
        };
        let retention = self.connector.options.retention;
        let [part_age, max_age] =
            [SEGMENTS, 1].map(|parts| to_stored_number(milliseconds(retention.max_age) / parts));
        let [part_bytes, max_bytes] =
            [SEGMENTS, 1].map(|parts| to_stored_number(retention.max_bytes / parts));
        let params: Params<'_> = &[&reading, &max_age, &part_age, &part_bytes, &None::<i32>];
        match self.session().await?.row(TURN, params).await {
            Ok(turned) if turned.get(0) => tracing::info!("a new segment of the log"),
            Ok(_) => {}
            // It is no reason to keep what has expired.
            Err(Failure::Conflict(reason)) => tracing::debug!(reason, "no new segment yet"),
            Err(failure) => return Err(failure),
        }
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
        let limit = self.connector.options.statement_timeout / 2;
        let until = Instant::now() + PATIENCE.min(limit);
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
            let patience = until.saturating_duration_since(Instant::now());
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

    /// Hides what a segment holds.
    async fn hide_segment(&mut self, segment: i32, reading: i64) -> Result<Step, Failure> {
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
                    self.shared.counters.damage.note_database(&failure.reason());
                    if std::mem::replace(&mut care, true) {
                        // It stays, and is tried again in the next round; others may be removed.
                        return Ok(Step::HeldUp);
                    }
                    next = Some(0);
                    busy.clear();
                }
                Err(failure) => return Err(failure),
            }
            self.pause().await;
        }
    }

    /// Drops the table of a segment, unless somebody reads it for long.
    async fn drop_segment(&mut self, segment: i32, patience: Duration) -> Result<Step, Failure> {
        let drop = "SELECT drop_segment($1, $2)";
        let patience = patience.as_secs_f64() * 1000.0;
        let dropped = self
            .session()
            .await?
            .row(drop, &[&segment, &patience])
            .await?;
        Ok(match dropped.get(0) {
            Some(true) => Step::Done(0),
            Some(false) => Step::ByAnother,
            None => Step::HeldUp,
        })
    }
}
