//! No channel keeps more events than it may, and none of which nothing is left keeps its row.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use chat_model::ChannelId;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Keeper, STEP_CHANNELS, STEP_EVENTS};
use crate::expiry_clock::milliseconds;
use crate::postgres::failure::Failure;
use crate::postgres::numbers::{from_stored_number, to_stored_number};
use crate::postgres::session::Params;
use crate::retention::{EARLY, EMPTY_FOR, MOST_EMPTY_CHANNELS};

/// How often it looks through all channels, some in each round.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);

impl Keeper {
    /// Removes the surplus of one channel.
    pub(super) async fn shorten(&mut self, channel: i64) -> Result<u64, Failure> {
        let (most, most_bytes) = self.most();
        let (step, early) = (to_stored_number(STEP_EVENTS), EARLY.as_secs_f64());
        let shared = self.shared.clone();
        let mut removed = 0;
        loop {
            let shorten = "SELECT * FROM shorten($1, $2, $3, $4, $5)";
            let params: Params<'_> = &[&channel, &most, &most_bytes, &step, &early];
            let rows = match self.session().await?.rows(shorten, params).await {
                // It cannot even be hidden: the others are no worse for it.
                Err(failure) if failure.is_damage() => {
                    shared.counters.damage.note_database(&failure.reason());
                    return Ok(removed);
                }
                rows => rows?,
            };
            let Some(row) = rows.first() else {
                return Ok(removed);
            };
            if let Some(damage) = row.get("damage") {
                shared.counters.damage.note_database(damage);
            }
            let events = from_stored_number(row.get("removed"));
            removed += events;
            shared.counters.expired.fetch_add(events, Relaxed);
            let owner: Option<Uuid> = row.get("owner");
            if let (Some(owner), Some(early)) = (owner, row.get("early")) {
                let early = from_stored_number(early);
                shared
                    .counters
                    .count_early_of(ChannelId::from(owner), early);
            }
            if !row.get::<_, bool>("more") {
                return Ok(removed);
            }
            self.pause().await;
        }
    }

    /// Events and bytes that a channel keeps at most.
    fn most(&self) -> (i64, i64) {
        let retention = &self.connector.options.retention;
        (
            to_stored_number(retention.max_per_channel),
            to_stored_number(retention.max_bytes_per_channel),
        )
    }

    /// Looks at some more of all channels.
    pub(super) async fn sweep_some(&mut self) -> Result<u64, Failure> {
        let (Some(seen), Some(reading)) = (self.sweep.seen, self.reading()) else {
            return Ok(0);
        };
        let (most, most_bytes) = self.most();
        let long_ago = (reading - to_stored_number(milliseconds(self.sweep.empty_for))).max(-1);
        let sweep = "SELECT * FROM sweep($1, $2, $3, $4, $5, $6)";
        let step: Params<'_> = &[
            &seen,
            &STEP_CHANNELS,
            &most,
            &most_bytes,
            &long_ago,
            &reading,
        ];
        let row = match self.session().await?.row(sweep, step).await {
            Err(failure @ Failure::Refused(_)) => {
                // Whatever it is about these, those behind must not wait for ever.
                self.sweep.seen = Some(seen + STEP_CHANNELS);
                return Err(failure);
            }
            row => row?,
        };
        let counters = &self.shared.counters;
        if let Some(damage) = row.get("damage") {
            counters.damage.note_database(damage);
        }
        let forgotten = from_stored_number(row.get("forgotten"));
        counters.channels_forgotten.fetch_add(forgotten, Relaxed);
        self.sweep.empty += from_stored_number(row.get("empty"));
        match row.get("last") {
            Some(last) => self.sweep.seen = Some(last),
            None => self.sweep.end(),
        }
        let mut removed = 0;
        // No rows are an array that is NULL.
        let too_long: Option<Vec<i64>> = row.get("too_long");
        for channel in too_long.unwrap_or_default() {
            removed += self.shorten(channel).await?;
        }
        Ok(removed)
    }
}

/// Where the sweep over all channels is.
pub(super) struct Sweep {
    /// The last channel that it has seen; `None` when it is done.
    pub(super) seen: Option<i64>,
    next: Instant,
    /// Channels met that could be forgotten, as nothing is kept of them, and how long that may be.
    empty: u64,
    empty_for: Duration,
}

impl Sweep {
    /// One that begins; the first starts with the store, since the rules may have changed.
    pub(super) fn new(empty_for: Duration) -> Self {
        Self {
            seen: Some(0),
            next: Instant::now() + SWEEP_EVERY,
            empty: 0,
            empty_for,
        }
    }

    pub(super) fn begin(&mut self) {
        *self = Self::new(self.empty_for);
    }

    /// Begins it if it is time.
    pub(super) fn begin_if_due(&mut self) {
        if self.seen.is_none() && self.next <= Instant::now() {
            self.begin();
        }
    }

    /// Where there are too many empty channels, those go that have been so for half as long.
    fn end(&mut self) {
        self.seen = None;
        if self.empty > MOST_EMPTY_CHANNELS {
            self.empty_for /= 2;
            self.next = Instant::now();
        } else {
            self.empty_for = EMPTY_FOR;
        }
    }
}
