//! No channel keeps more events than it may, and none of which nothing is left keeps its row.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use tokio::time::Instant;

use super::{Keeper, NoSession, STEP_CHANNELS, STEP_EVENTS};
use crate::{
    expiry_clock::milliseconds,
    postgres::{
        batch::{from_stored_number, to_stored_number},
        failure::Failure,
        session::Session,
    },
};

/// How often it looks through all channels, some in each round.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);
/// How long a channel of which nothing is kept is remembered: whoever comes back to it meanwhile finds
/// its head where it was.
const EMPTY_FOR: Duration = Duration::from_secs(30 * 24 * 3600);
/// Channels of which nothing is kept that are remembered, about.
const MOST_EMPTY_CHANNELS: u64 = 100_000;

impl Keeper {
    /// Removes the surplus of one channel.
    pub(super) async fn shorten(&mut self, channel: i64) -> Result<u64, NoSession> {
        let limit = self.connector.options.retention.max_per_channel;
        let shared = self.shared.clone();
        let mut removed = 0;
        loop {
            let session = self.session().await?;
            let step = session.transaction(shorten(session, channel, limit));
            let (step, more) = match step.await {
                Err(failure) if failure.is_damage() => {
                    shared.counters.damage.note_database(failure.reason());
                    // Nobody sees it any more, and it goes with its segment.
                    let hidden = session.transaction(hide(session, channel, limit)).await?;
                    (hidden, false)
                }
                step => step?,
            };
            removed += step;
            self.shared.counters.expired.fetch_add(step, Relaxed);
            if !more {
                return Ok(removed);
            }
            self.pause().await;
        }
    }

    /// Looks at some more of all channels.
    pub(super) async fn sweep_some(&mut self) -> Result<u64, NoSession> {
        let (Some(seen), Some(reading)) = (self.sweep.seen, self.reading()) else {
            return Ok(0);
        };
        let limit = to_stored_number(self.connector.options.retention.max_per_channel);
        let long_ago = reading.checked_sub(milliseconds(self.sweep.empty_for));
        let long_ago = long_ago.map_or(-1, to_stored_number);
        let rows = self
            .session()
            .await?
            .seldom(
                "SELECT no, head - floor > $3, head = floor,
                    head = floor AND (emptied <= $4 OR emptied IS NULL)
                 FROM channels WHERE no > $1 ORDER BY no LIMIT $2",
                &[&seen, &STEP_CHANNELS, &limit, &long_ago],
            )
            .await?;
        let mut removed = 0;
        for row in rows.iter().filter(|row| row.get(1)) {
            removed += self.shorten(row.get(0)).await?;
        }
        let numbers = |column| {
            let some = rows.iter().filter(move |row| row.get(column));
            some.map(|row| row.get(0)).collect::<Vec<i64>>()
        };
        let empty = numbers(3);
        if !empty.is_empty() {
            let session = self.session().await?;
            let reading = to_stored_number(reading);
            let step = session.transaction(forget(session, &empty, long_ago, reading));
            let forgotten = step.await?;
            self.sweep.empty = self.sweep.empty.saturating_sub(forgotten);
        }
        self.sweep.empty += numbers(2).len() as u64;
        match rows.last() {
            Some(last) => self.sweep.seen = Some(last.get(0)),
            None => self.sweep.end(),
        }
        Ok(removed)
    }
}

/// Where the sweep over all channels is.
pub(super) struct Sweep {
    /// The last channel that it has seen; `None` when it is done.
    seen: Option<i64>,
    next: Instant,
    /// Channels met of which nothing is kept, and how long that may be.
    empty: u64,
    empty_for: Duration,
}

impl Sweep {
    /// It starts with the store, since the rules may have changed.
    pub(super) fn new() -> Self {
        Self {
            seen: Some(0),
            next: Instant::now() + SWEEP_EVERY,
            empty: 0,
            empty_for: EMPTY_FOR,
        }
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.seen.is_some()
    }

    pub(super) fn begin(&mut self) {
        self.seen = Some(0);
        self.empty = 0;
        self.next = Instant::now() + SWEEP_EVERY;
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

/// Removes the rows of channels of which nothing is left, no event and no sender's key, inside the open
/// transaction; returns how many. Since when they are empty is noted where it is not known. One that is
/// locked is not empty for long.
async fn forget(
    session: &Session,
    channels: &[i64],
    long_ago: i64,
    reading: i64,
) -> Result<u64, Failure> {
    let locked = session
        .seldom(
            "SELECT no FROM channels WHERE no = ANY($1) AND head = floor
             ORDER BY uuid FOR UPDATE SKIP LOCKED",
            &[&channels],
        )
        .await?;
    let locked: Vec<i64> = locked.iter().map(|row| row.get(0)).collect();
    session
        .seldom(
            "UPDATE channels SET emptied = $2 WHERE no = ANY($1) AND emptied IS NULL",
            &[&locked, &reading],
        )
        .await?;
    let gone = session
        .seldom(
            "WITH gone AS (
                DELETE FROM channels c WHERE no = ANY($1) AND emptied <= $2
                    AND NOT EXISTS (SELECT FROM sender_keys k WHERE k.channel_no = c.no)
                RETURNING epoch),
             noted AS (
                UPDATE state SET forgotten = greatest(forgotten, (SELECT max(epoch) FROM gone),
                    (SELECT max(epoch) FROM unnest(incarnations) epoch))
                WHERE EXISTS (SELECT FROM gone))
             SELECT count(*) FROM gone",
            &[&locked, &long_ago],
        )
        .await?;
    Ok(from_stored_number(gone[0].get(0)))
}

/// Raises the floor alone, inside the open transaction: how many events that hides.
async fn hide(session: &Session, channel: i64, limit: u64) -> Result<u64, Failure> {
    let limit = to_stored_number(limit);
    let rows = session
        .seldom(
            "WITH before AS (SELECT no, floor FROM channels WHERE no = $1 FOR UPDATE)
             UPDATE channels c SET floor = c.head - $2 FROM before
             WHERE c.no = before.no AND c.head - $2 > c.floor
             RETURNING c.floor - before.floor",
            &[&channel, &limit],
        )
        .await?;
    Ok(rows.first().map_or(0, |row| from_stored_number(row.get(0))))
}

/// One step, inside the open transaction: how many were removed, and whether there are more. The
/// row of the log is locked, so that the floor and what lies above it change together.
async fn shorten(session: &Session, channel: i64, limit: u64) -> Result<(u64, bool), Failure> {
    let rows = session
        .seldom(
            "SELECT head, floor FROM channels WHERE no = $1 FOR UPDATE",
            &[&channel],
        )
        .await?;
    let Some(row) = rows.first() else {
        return Ok((0, false));
    };
    let (head, floor) = (
        from_stored_number(row.get(0)),
        from_stored_number(row.get(1)),
    );
    let wanted = head.saturating_sub(limit);
    let to = wanted.min(floor + STEP_EVENTS);
    if to <= floor {
        return Ok((0, false));
    }
    let (from, up_to) = (to_stored_number(floor), to_stored_number(to));
    session
        .seldom(
            "DELETE FROM log WHERE channel_no = $1 AND seq > $2 AND seq <= $3",
            &[&channel, &from, &up_to],
        )
        .await?;
    session
        .seldom(
            "UPDATE channels SET floor = $2 WHERE no = $1",
            &[&channel, &up_to],
        )
        .await?;
    Ok((to - floor, to < wanted))
}
