//! No channel keeps more events than it may, and none of which nothing is left keeps its row.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use chat_model::ChannelId;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Keeper, NoSession, STEP_CHANNELS, STEP_EVENTS};
use crate::{
    Retention,
    expiry_clock::milliseconds,
    postgres::{
        failure::Failure,
        numbers::{from_stored_number, to_stored_number},
        session::Session,
    },
    retention::{EARLY, EMPTY_FOR, MOST_EMPTY_CHANNELS},
};

/// How often it looks through all channels, some in each round.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);
impl Keeper {
    /// Removes the surplus of one channel.
    pub(super) async fn shorten(&mut self, channel: i64) -> Result<u64, NoSession> {
        let retention = self.connector.options.retention;
        let shared = self.shared.clone();
        let mut removed = 0;
        loop {
            let session = self.session().await?;
            let step = session.transaction(shorten(session, channel, &retention));
            let step = match step.await {
                Err(failure) if failure.is_damage() => {
                    shared.counters.damage.note_database(failure.reason());
                    // Nobody sees it any more, and it goes with its segment.
                    let limit = retention.max_per_channel;
                    let hidden = session.transaction(hide(session, channel, limit)).await?;
                    Shortened {
                        events: hidden,
                        ..Shortened::default()
                    }
                }
                step => step?,
            };
            removed += step.events;
            shared.counters.expired.fetch_add(step.events, Relaxed);
            if let Some(channel) = step.channel {
                shared.counters.count_early_of(channel, step.early);
            }
            if !step.more {
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
        let retention = self.connector.options.retention;
        let limit = to_stored_number(retention.max_per_channel);
        let bytes = to_stored_number(retention.max_bytes_per_channel);
        let long_ago = reading.checked_sub(milliseconds(self.sweep.empty_for));
        let long_ago = long_ago.map_or(-1, to_stored_number);
        let found = self
            .session()
            .await?
            .rows(
                "SELECT no, head - floor > $3 OR (sent - gone > $5 AND head - floor > 1), head = floor,
                    head = floor AND (emptied <= $4 OR emptied IS NULL)
                 FROM channels WHERE no > $1 ORDER BY no LIMIT $2",
                &[&seen, &STEP_CHANNELS, &limit, &long_ago, &bytes],
            )
            .await;
        let rows = match found {
            Err(failure) if failure.is_damage() => {
                // One of them cannot be read: the sweep goes on with those behind.
                self.shared.counters.damage.note_database(failure.reason());
                self.sweep.seen = Some(seen + STEP_CHANNELS);
                return Ok(0);
            }
            found => found?,
        };
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
            let counter = &self.shared.counters.channels_forgotten;
            counter.fetch_add(forgotten, Relaxed);
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
    /// Channels met that could be forgotten, as nothing is kept of them, and how long that may be.
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
        .rows(
            "SELECT no FROM channels WHERE no = ANY($1) AND head = floor
             ORDER BY uuid FOR UPDATE SKIP LOCKED",
            &[&channels],
        )
        .await?;
    let locked: Vec<i64> = locked.iter().map(|row| row.get(0)).collect();
    session
        .rows(
            "UPDATE channels SET emptied = $2 WHERE no = ANY($1) AND emptied IS NULL",
            &[&locked, &reading],
        )
        .await?;
    let gone = session
        .rows(
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
        .rows(
            "WITH before AS (SELECT no, floor FROM channels WHERE no = $1 FOR UPDATE)
             UPDATE channels c SET floor = c.head - $2 FROM before
             WHERE c.no = before.no AND c.head - $2 > c.floor
             RETURNING c.floor - before.floor",
            &[&channel, &limit],
        )
        .await?;
    Ok(rows.first().map_or(0, |row| from_stored_number(row.get(0))))
}

/// What a step removed.
#[derive(Default)]
struct Shortened {
    events: u64,
    /// Those of them that were young, and went because the channel has too many bytes.
    early: u64,
    channel: Option<ChannelId>,
    /// Whether there is more to remove.
    more: bool,
}

/// One step, inside the open transaction. The row of the log is locked, so that the floor and what
/// lies above it change together.
async fn shorten(
    session: &Session,
    channel: i64,
    retention: &Retention,
) -> Result<Shortened, Failure> {
    let rows = session
        .rows(
            "SELECT head, floor, sent, gone, uuid FROM channels WHERE no = $1 FOR UPDATE",
            &[&channel],
        )
        .await?;
    let Some(row) = rows.first() else {
        return Ok(Shortened::default());
    };
    let number = |column| from_stored_number(row.get(column));
    let (head, floor) = (number(0), number(1));
    let by_number = head.saturating_sub(retention.max_per_channel);
    let end = floor + STEP_EVENTS;
    let mut to = by_number.min(end).max(floor);
    let mut more = to < by_number;
    let kept = number(2).saturating_sub(number(3));
    if kept > retention.max_bytes_per_channel {
        let sent: i64 = row.get(2);
        let limit = to_stored_number(retention.max_bytes_per_channel);
        // The newest stays, whatever its size.
        let last = to_stored_number(end.min(head.saturating_sub(1)));
        let enough = session
            .rows(
                "SELECT min(seq) FILTER (WHERE $4 - coalesce(upto, 0) <= $5), max(seq)
                 FROM log WHERE channel_no = $1 AND seq > $2 AND seq <= $3",
                &[&channel, &to_stored_number(floor), &last, &sent, &limit],
            )
            .await?;
        let enough: (Option<i64>, Option<i64>) = (enough[0].get(0), enough[0].get(1));
        let by_bytes = enough.0.or(enough.1).map_or(floor, from_stored_number);
        more |= enough.0.is_none() && by_bytes == end;
        to = to.max(by_bytes);
    }
    if to <= floor {
        return Ok(Shortened::default());
    }
    let up_to = to_stored_number(to);
    let removed = session
        .rows(
            "WITH removed AS (
                DELETE FROM log WHERE channel_no = $1 AND seq > $2 AND seq <= $3
                RETURNING seq, upto, stored)
             SELECT max(upto), count(*) FILTER (
                WHERE seq > $4 AND stored > now() - $5 * interval '1 second')
             FROM removed",
            &[
                &channel,
                &to_stored_number(floor),
                &up_to,
                &to_stored_number(by_number),
                &EARLY.as_secs_f64(),
            ],
        )
        .await?;
    let gone: Option<i64> = removed[0].get(0);
    session
        .rows(
            "UPDATE channels SET floor = $2, gone = greatest(gone, $3) WHERE no = $1",
            &[&channel, &up_to, &gone],
        )
        .await?;
    let uuid: Uuid = row.get(4);
    Ok(Shortened {
        events: to - floor,
        early: from_stored_number(removed[0].get(1)),
        channel: Some(uuid.into()),
        more,
    })
}
