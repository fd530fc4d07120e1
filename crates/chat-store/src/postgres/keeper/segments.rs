//! The log is cut into segments by age and size, and what is old goes a whole segment at a time:
//! that leaves no dead rows behind, however many there were.
//!
//! A segment that has expired goes in two parts. First the floors of its channels are raised, some
//! at a time; from then on nobody sees its events. Then its table is dropped. After a crash in
//! between, the same is done again from the start, and finds the floors raised.

use std::sync::atomic::Ordering::Relaxed;

use super::{Keeper, NoSession, STEP_CHANNELS, is_alone};
use crate::{
    Retention,
    expiry_clock::milliseconds,
    postgres::{
        batch::{from_stored_number, to_stored_number},
        epochs::append_lock,
        failure::Failure,
        session::Session,
    },
};

/// Into how many segments the log of the longest age, or of the largest size, is cut.
const SEGMENTS: u64 = 16;

impl Keeper {
    /// Begins a new segment if it is time, and removes those that have expired.
    pub(super) async fn expire_segments(&mut self) -> Result<u64, NoSession> {
        let Some(reading) = self.reading() else {
            return Ok(0);
        };
        let retention = self.connector.options.retention;
        let session = self.session().await?;
        if session
            .transaction(turn(session, &retention, reading))
            .await?
        {
            tracing::info!("a new segment of the log");
        }
        let mut removed = 0;
        loop {
            let session = self.session().await?;
            let Some(segment) = oldest_expired(session, &retention, reading).await? else {
                return Ok(removed);
            };
            let Some(events) = self.remove(segment).await? else {
                // Another process is at it.
                return Ok(removed);
            };
            tracing::info!(segment, events, "a segment of the log has expired");
            removed += events;
        }
    }

    /// Removes a segment; `None` if another process is at it.
    async fn remove(&mut self, segment: i32) -> Result<Option<u64>, NoSession> {
        let (mut after, mut removed) = (0, 0);
        loop {
            let session = self.session().await?;
            let step = session
                .transaction(raise_floors(session, segment, after))
                .await?;
            let Some(Raised { events, last }) = step else {
                return Ok(None);
            };
            removed += events;
            self.shared.counters.expired.fetch_add(events, Relaxed);
            match last {
                Some(last) => after = last,
                None => break,
            }
            self.pause().await;
        }
        let session = self.session().await?;
        let dropped = session.transaction(drop_table(session, segment)).await?;
        Ok(dropped.then_some(removed))
    }
}

/// Begins a new segment if the one that is written to has grown too old or too large.
///
/// Whoever appends holds the lock of the appends (shared) until it has committed: when we have it
/// alone, all that goes into the old segment is there, and whoever comes after us sees the new one.
/// So no channel ever has an event in an older segment than one before it.
async fn turn(session: &Session, retention: &Retention, reading: u64) -> Result<bool, Failure> {
    if !is_alone(session).await? {
        return Ok(false);
    }
    let rows = session
        .seldom(
            "SELECT segment, created, pg_total_relation_size(format('hark.log_%s', segment)::regclass),
                EXISTS (SELECT FROM log WHERE log.segment = state.segment),
                (SELECT coalesce(max(wrote_at), 0) FROM lanes)
             FROM state JOIN segments ON n = segment",
            &[],
        )
        .await?;
    let Some(row) = rows.first() else {
        return Ok(false);
    };
    let segment: i32 = row.get(0);
    let (created, bytes, newest) = (
        from_stored_number(row.get(1)),
        from_stored_number(row.get(2)),
        from_stored_number(row.get(4)),
    );
    let max_age = milliseconds(retention.max_age);
    let is_due = reading >= created.saturating_add(max_age / SEGMENTS)
        || reading >= newest.saturating_add(max_age)
        || bytes > retention.max_bytes / SEGMENTS;
    if !is_due || !row.get::<_, bool>(3) {
        return Ok(false);
    }
    session
        .seldom(
            "SELECT add_segment($1, $2)",
            &[&(segment + 1), &to_stored_number(reading)],
        )
        .await?;
    // Last, and not waited for long: while it is, all posts wait behind it.
    session.run("SET LOCAL lock_timeout = 2000").await?;
    session
        .run(concat!("SELECT pg_advisory_xact_lock", append_lock!()))
        .await?;
    session
        .seldom(
            "UPDATE segments SET newest = (SELECT max(wrote_at) FROM lanes) WHERE n = $1",
            &[&segment],
        )
        .await?;
    session
        .seldom("UPDATE state SET segment = $1", &[&(segment + 1)])
        .await?;
    Ok(true)
}

/// The oldest segment, if all of it is too old or all segments together are too large.
async fn oldest_expired(
    session: &Session,
    retention: &Retention,
    reading: u64,
) -> Result<Option<i32>, Failure> {
    let rows = session
        .seldom(
            "SELECT n, newest,
                (SELECT sum(pg_total_relation_size(inhrelid))::bigint FROM pg_inherits
                 WHERE inhparent = 'hark.log'::regclass)
             FROM segments WHERE n < (SELECT segment FROM state) ORDER BY n LIMIT 1",
            &[],
        )
        .await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    // Both are known of a segment that is no longer written to; if they were not, it would stay.
    let newest = row
        .get::<_, Option<i64>>(1)
        .map_or(reading, from_stored_number);
    let bytes = row.get::<_, Option<i64>>(2).map_or(0, from_stored_number);
    let is_old = reading >= newest.saturating_add(milliseconds(retention.max_age));
    let is_large = bytes > retention.max_bytes;
    Ok((is_old || is_large).then(|| row.get(0)))
}

/// What one step raised.
struct Raised {
    events: u64,
    /// The last channel that it looked at; `None` after the last of all.
    last: Option<i64>,
}

/// Raises the floors of some channels over what a segment holds of them; `None` if another process
/// is at it. Nobody writes to the segment any more, so its index tells all of them: from one to the
/// next, whatever number of events lies in between.
async fn raise_floors(
    session: &Session,
    segment: i32,
    after: i64,
) -> Result<Option<Raised>, Failure> {
    if !is_alone(session).await? {
        return Ok(None);
    }
    let exists = session
        .seldom(
            "SELECT EXISTS (SELECT FROM segments WHERE n = $1)",
            &[&segment],
        )
        .await?;
    if !exists[0].get::<_, bool>(0) {
        return Ok(None);
    }
    let table = format!("log_{segment}");
    let rows = session
        .seldom(
            &format!(
                "WITH RECURSIVE found (no) AS (
                    (SELECT channel_no FROM {table} WHERE channel_no > $1 ORDER BY channel_no LIMIT 1)
                    UNION ALL
                    SELECT (SELECT channel_no FROM {table} WHERE channel_no > found.no
                            ORDER BY channel_no LIMIT 1)
                    FROM found WHERE found.no IS NOT NULL)
                 SELECT no, (SELECT max(seq) FROM {table} WHERE channel_no = found.no)
                 FROM found WHERE no IS NOT NULL LIMIT $2"
            ),
            &[&after, &STEP_CHANNELS],
        )
        .await?;
    let channels: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    let seqs: Vec<i64> = rows.iter().map(|row| row.get(1)).collect();
    // In the order in which all lock them.
    let locked = session
        .seldom(
            "SELECT no, floor FROM channels WHERE no = ANY($1) ORDER BY uuid FOR UPDATE",
            &[&channels],
        )
        .await?;
    let floors: std::collections::HashMap<i64, i64> =
        locked.iter().map(|row| (row.get(0), row.get(1))).collect();
    let raised = channels.iter().zip(&seqs);
    let events = raised.filter_map(|(no, seq)| Some(seq - floors.get(no)?));
    let events = events
        .filter(|&more| more > 0)
        .map(from_stored_number)
        .sum();
    session
        .seldom(
            "UPDATE channels c SET floor = gone.seq
             FROM unnest($1::bigint[], $2::bigint[]) gone (no, seq)
             WHERE c.no = gone.no AND c.floor < gone.seq",
            &[&channels, &seqs],
        )
        .await?;
    let is_last = to_stored_number(rows.len() as u64) < STEP_CHANNELS;
    Ok(Some(Raised {
        events,
        last: channels.last().copied().filter(|_| !is_last),
    }))
}

/// Drops a segment whose floors are raised; false if another process is at it.
///
/// The whole log is locked for it, which waits for the batches and pages under way and lets later
/// ones wait: not for long, and another time if that is not enough.
async fn drop_table(session: &Session, segment: i32) -> Result<bool, Failure> {
    if !is_alone(session).await? {
        return Ok(false);
    }
    session.run("SET LOCAL lock_timeout = 1000").await?;
    session
        .run(&format!("DROP TABLE IF EXISTS log_{segment}"))
        .await?;
    session
        .seldom("DELETE FROM segments WHERE n = $1", &[&segment])
        .await?;
    Ok(true)
}
