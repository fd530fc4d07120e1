//! Raising the floors of channels over what a segment holds of them.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::Ordering::Relaxed,
};

use super::{Keeper, NOT_FOR_LONG, NoSession, STEP_CHANNELS, is_alone};
use crate::postgres::{
    failure::Failure,
    numbers::{from_stored_number, to_stored_number},
    session::Session,
};

/// What became of the events of a segment that has expired.
pub(super) enum Hidden {
    Yes(u64),
    /// Somebody lets nobody read it, or its channels are damaged.
    Locked,
    /// Another process is at it.
    ByAnother,
}

impl Keeper {
    /// Hides what a segment holds.
    pub(super) async fn hide(&mut self, segment: i32, reading: u64) -> Result<Hidden, NoSession> {
        let (mut after, mut hidden, mut is_locked) = (0, 0, false);
        let mut found_by = OWN_EVENTS;
        let reading = to_stored_number(reading);
        loop {
            let session = self.session().await?;
            let step = session
                .transaction(next_floors(session, (segment, reading), after, found_by))
                .await;
            let (mut raised, busy, last) = match step {
                Ok(Some(step)) => (step.raised, step.busy, step.last),
                Ok(None) => return Ok(Hidden::ByAnother),
                Err(Failure::Conflict(_)) => return Ok(Hidden::Locked),
                Err(failure) if failure.is_damage() && found_by == OWN_EVENTS => {
                    self.shared.counters.damage.note_database(failure.reason());
                    (after, found_by) = (0, LATER_EVENTS);
                    continue;
                }
                Err(failure) if failure.is_damage() => {
                    // It stays, and is tried again in the next round; others may be removed.
                    self.shared.counters.damage.note_database(failure.reason());
                    return Ok(Hidden::Locked);
                }
                Err(failure) => return Err(failure.into()),
            };
            // One by one, so that nothing is held while another's batch is waited for.
            for floor in busy {
                let one = std::slice::from_ref(&floor);
                let step = session.transaction(raise_floors(session, one, reading, WAITING));
                match step.await {
                    Ok((events, _)) => raised += events,
                    Err(Failure::Conflict(_)) => is_locked = true,
                    Err(failure) if failure.is_damage() => is_locked = true,
                    Err(failure) => return Err(failure.into()),
                }
            }
            hidden += raised;
            self.shared.counters.expired.fetch_add(raised, Relaxed);
            match last {
                Some(last) => after = last,
                None if is_locked => return Ok(Hidden::Locked),
                None => return Ok(Hidden::Yes(hidden)),
            }
            self.pause().await;
        }
    }
}

/// What one step did.
struct Step {
    /// Events that nobody sees any more.
    raised: u64,
    /// The floors that could not be raised without waiting.
    busy: Vec<Floor>,
    /// The last channel that it looked at; `None` after the last of all.
    last: Option<i64>,
}

/// The highest number that a channel has in a segment.
struct Floor {
    channel: i64,
    seq: i64,
    /// Bytes of the channel's events up to there, if they were counted.
    upto: Option<i64>,
}

const WAITING: &str = "FOR UPDATE";
const NOT_WAITING: &str = "FOR UPDATE SKIP LOCKED";

/// Nobody writes to the segment any more, so its index tells all channels that it holds: from one to
/// the next, whatever number of events lies in between.
const OWN_EVENTS: &str = "
    WITH RECURSIVE found (no) AS (
        (SELECT channel_no FROM {table} WHERE channel_no > $1 ORDER BY channel_no LIMIT 1)
        UNION ALL
        SELECT (SELECT channel_no FROM {table} WHERE channel_no > found.no
                ORDER BY channel_no LIMIT 1)
        FROM found WHERE found.no IS NOT NULL)
    SELECT no, (SELECT max(seq) FROM {table} WHERE channel_no = found.no),
        (SELECT upto FROM {table} WHERE channel_no = found.no ORDER BY seq DESC LIMIT 1)
    FROM found WHERE no IS NOT NULL LIMIT $2";

/// The same of a segment that cannot be read: what lies before the later events of each channel.
const LATER_EVENTS: &str = "
    SELECT no, coalesce((SELECT min(seq) FROM log WHERE channel_no = c.no AND segment > {n}), head + 1) - 1,
        NULL::bigint
    FROM channels c WHERE no > $1 ORDER BY no LIMIT $2";

/// Raises the floors of some channels over what a segment holds of them; `None` if another process
/// is at it.
async fn next_floors(
    session: &Session,
    (segment, reading): (i32, i64),
    after: i64,
    found_by: &str,
) -> Result<Option<Step>, Failure> {
    if !is_alone(session).await? {
        return Ok(None);
    }
    // Who lets nobody read it is not waited for: there is another round, and other segments.
    session.run(NOT_FOR_LONG).await?;
    let exists = session
        .rows(
            "SELECT EXISTS (SELECT FROM segments WHERE n = $1)",
            &[&segment],
        )
        .await?;
    if !exists[0].get::<_, bool>(0) {
        return Ok(None);
    }
    let question = found_by
        .replace("{table}", &format!("log_{segment}"))
        .replace("{n}", &segment.to_string());
    let rows = session.rows(&question, &[&after, &STEP_CHANNELS]).await?;
    let mut floors: Vec<Floor> = rows
        .iter()
        .map(|row| Floor {
            channel: row.get(0),
            seq: row.get(1),
            upto: row.get(2),
        })
        .collect();
    let is_last = to_stored_number(rows.len() as u64) < STEP_CHANNELS;
    let last = floors.last().map(|last| last.channel);
    let (raised, seen) = raise_floors(session, &floors, reading, NOT_WAITING).await?;
    floors.retain(|floor| !seen.contains(&floor.channel));
    Ok(Some(Step {
        raised,
        busy: floors,
        last: last.filter(|_| !is_last),
    }))
}

/// Raises floors, inside the open transaction: how many events that hides, and which channels were
/// looked at. Others are busy, or gone.
async fn raise_floors(
    session: &Session,
    floors: &[Floor],
    reading: i64,
    lock: &str,
) -> Result<(u64, HashSet<i64>), Failure> {
    let channels: Vec<i64> = floors.iter().map(|floor| floor.channel).collect();
    let seqs: Vec<i64> = floors.iter().map(|floor| floor.seq).collect();
    let uptos: Vec<Option<i64>> = floors.iter().map(|floor| floor.upto).collect();
    session.run(NOT_FOR_LONG).await?;
    // In the order in which all lock them.
    let locked = session
        .rows(
            &format!("SELECT no, floor FROM channels WHERE no = ANY($1) ORDER BY uuid {lock}"),
            &[&channels],
        )
        .await?;
    let before: HashMap<i64, i64> = locked.iter().map(|row| (row.get(0), row.get(1))).collect();
    let events = floors
        .iter()
        .filter_map(|floor| Some(floor.seq - before.get(&floor.channel)?));
    let events = events
        .filter(|&more| more > 0)
        .map(from_stored_number)
        .sum();
    let seen: HashSet<i64> = before.into_keys().collect();
    let seen_channels: Vec<i64> = seen.iter().copied().collect();
    session
        .rows(
            "UPDATE channels c SET floor = gone.seq, gone = greatest(c.gone, gone.upto),
                emptied = CASE WHEN gone.seq = c.head THEN $4::bigint END
             FROM unnest($1::bigint[], $2::bigint[], $5::bigint[]) gone (no, seq, upto)
             WHERE c.no = gone.no AND c.floor < gone.seq AND c.no = ANY($3)",
            &[&channels, &seqs, &seen_channels, &reading, &uptos],
        )
        .await?;
    Ok((events, seen))
}
