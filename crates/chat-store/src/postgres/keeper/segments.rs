//! The log is cut into segments by age and size, and what is old goes a whole segment at a time:
//! that leaves no dead rows behind, however many there were.
//!
//! A segment that has expired goes in two parts. First the floors of its channels are raised, some
//! at a time; from then on nobody sees its events. Then its table is dropped. After a crash in
//! between, the same is done again from the start, and finds the floors raised.
//!
//! A table that somebody reads for long (a dump, which holds all of them) stays until that is over:
//! whoever waited for it would hold up all posts. Events expire in the meantime all the same.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_postgres::Row;

use super::{Keeper, NOT_FOR_LONG, NoSession, floors::Hidden, is_alone};
use crate::{
    Retention,
    expiry_clock::milliseconds,
    postgres::{
        failure::Failure,
        numbers::{from_stored_number, to_stored_number},
        session::Session,
    },
    retention::EARLY,
};

/// How long transactions that hold a table are waited for before it is dropped, and how often it is
/// looked whether they are over.
const PATIENCE: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
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
        match session
            .transaction(turn(session, &retention, reading))
            .await
        {
            Ok(true) => tracing::info!("a new segment of the log"),
            Ok(false) => {}
            // It is no reason to keep what has expired.
            Err(Failure::Conflict(reason)) => tracing::debug!(reason, "no new segment yet"),
            Err(failure) => return Err(failure.into()),
        }
        let session = self.session().await?;
        let expired = expired_segments(session, &retention, reading).await?;
        let is_there = |segment: &i32| expired.iter().any(|expired| expired.segment == *segment);
        self.held_up.retain(is_there);
        let mut removed = 0;
        let was_held_up = !self.held_up.is_empty();
        // For all of them together: where one dump holds one, it holds all.
        let patience = Instant::now() + PATIENCE;
        for Expired { segment, is_early } in expired {
            if !self.held_up.contains(&segment) {
                match self.hide(segment, reading).await? {
                    Hidden::Yes(events) => {
                        tracing::info!(segment, events, "a segment of the log has expired");
                        if is_early {
                            self.shared.counters.count_early(events);
                        }
                        removed += events;
                        self.held_up.insert(segment);
                    }
                    // The next ones cover what it has of their channels.
                    Hidden::Locked => continue,
                    Hidden::ByAnother => return Ok(removed),
                }
            }
            match self.drop_segment(segment, patience).await? {
                Dropped::Yes => {
                    self.held_up.remove(&segment);
                }
                Dropped::HeldUp => {}
                Dropped::ByAnother => return Ok(removed),
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

    /// Begins a new segment because nothing can be added to this one.
    pub(super) async fn leave(&mut self, segment: i32) -> Result<u64, NoSession> {
        let Some(reading) = self.reading() else {
            return Ok(0);
        };
        let session = self.session().await?;
        let begun = session
            .transaction(leave(session, segment, reading))
            .await?;
        if begun {
            tracing::error!(
                segment,
                "the log goes on in a new segment, for this one is damaged"
            );
        }
        Ok(0)
    }

    /// Drops the table of a segment, unless somebody reads it for long.
    async fn drop_segment(
        &mut self,
        segment: i32,
        patience: Instant,
    ) -> Result<Dropped, NoSession> {
        let session = self.session().await?;
        // Batches and pages are soon over, and others come; one that stays is not waited for.
        let mut still = holders(session, segment).await?;
        while !still.is_empty() {
            if Instant::now() >= patience {
                return Ok(Dropped::HeldUp);
            }
            sleep(LOOK_AGAIN).await;
            let now = holders(session, segment).await?;
            still.retain(|holder| now.contains(holder));
        }
        match session.transaction(drop_table(session, segment)).await {
            Ok(true) => Ok(Dropped::Yes),
            Ok(false) => Ok(Dropped::ByAnother),
            // Somebody came in between.
            Err(Failure::Conflict(_)) => Ok(Dropped::HeldUp),
            Err(failure) => Err(failure.into()),
        }
    }
}

/// What became of the table of a segment that has expired.
enum Dropped {
    Yes,
    /// Somebody holds it for long.
    HeldUp,
    /// Another process is at it.
    ByAnother,
}

/// The transactions that hold the log or a segment's table.
async fn holders(session: &Session, segment: i32) -> Result<Vec<String>, Failure> {
    let rows = session
        .rows(
            "SELECT DISTINCT virtualtransaction FROM pg_locks
             WHERE locktype = 'relation' AND granted AND pid <> pg_backend_pid()
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                AND relation IN ('hark.log'::regclass, to_regclass(format('hark.log_%s', $1::integer)))",
            &[&segment],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Begins a new segment if the one that is written to has grown too old or too large.
async fn turn(session: &Session, retention: &Retention, reading: u64) -> Result<bool, Failure> {
    if !is_alone(session).await? {
        return Ok(false);
    }
    session.run(NOT_FOR_LONG).await?;
    let rows = session
        .rows(
            "SELECT segment, created, pg_total_relation_size(format('hark.log_%s', segment)::regclass),
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
        from_stored_number(row.get(3)),
    );
    let max_age = milliseconds(retention.max_age);
    let is_due = reading >= created.saturating_add(max_age / SEGMENTS)
        || reading >= newest.saturating_add(max_age)
        || bytes > retention.max_bytes / SEGMENTS;
    if !is_due {
        return Ok(false);
    }
    // Asked of the file: of the whole log somebody may hold another part, and a page may be damaged.
    let is_used = format!("SELECT pg_relation_size('hark.log_{segment}') > 0");
    if !session.rows(&is_used, &[]).await?[0].get::<_, bool>(0) {
        return Ok(false);
    }
    begin_next(session, segment, reading).await?;
    Ok(true)
}

/// Begins the segment after this one.
///
/// Whoever appends holds the lock of the appends (shared) until it has committed: when we have it
/// alone, all that goes into the old segment is there, and whoever comes after us sees the new one.
/// So no channel ever has an event in an older segment than one before it.
async fn begin_next(session: &Session, segment: i32, reading: u64) -> Result<(), Failure> {
    session
        .rows(
            "SELECT add_segment($1, $2)",
            &[&(segment + 1), &to_stored_number(reading)],
        )
        .await?;
    // Last, and not waited for long: while it is, all posts wait behind it.
    session.run("SET LOCAL lock_timeout = 2000").await?;
    session
        .run("SELECT pg_advisory_xact_lock(hashtext('hark'), hashtext('append'))")
        .await?;
    session
        .rows(
            "UPDATE segments SET newest = (SELECT max(wrote_at) FROM lanes) WHERE n = $1",
            &[&segment],
        )
        .await?;
    session
        .rows("UPDATE state SET segment = $1", &[&(segment + 1)])
        .await?;
    Ok(())
}

/// Begins a new segment if this one is still written to.
async fn leave(session: &Session, segment: i32, reading: u64) -> Result<bool, Failure> {
    if !is_alone(session).await? {
        return Ok(false);
    }
    let current = session.rows("SELECT segment FROM state", &[]).await?;
    if current[0].get::<_, i32>(0) != segment {
        return Ok(false);
    }
    begin_next(session, segment, reading).await?;
    Ok(true)
}

/// A segment that has expired, and whether some of it is young: only `max_bytes` can ask for that.
struct Expired {
    segment: i32,
    is_early: bool,
}

/// The segments of which all is too old, or which are too much with all later ones; the oldest
/// first. One that somebody lets nobody read counts as empty while that lasts. One that is hidden already
/// is among them as long as its table is there.
async fn expired_segments(
    session: &Session,
    retention: &Retention,
    reading: u64,
) -> Result<Vec<Expired>, Failure> {
    let rows = session
        .rows(
            "SELECT n, newest, n < state.segment,
                CASE WHEN EXISTS (SELECT FROM pg_locks WHERE mode = 'AccessExclusiveLock'
                        AND relation = to_regclass(format('hark.log_%s', n)))
                    THEN 0
                    ELSE coalesce(pg_total_relation_size(to_regclass(format('hark.log_%s', n))), 0)
                END
             FROM segments, state ORDER BY n",
            &[],
        )
        .await?;
    let size = |row: &Row| from_stored_number(row.get(3));
    let mut bytes: u64 = rows.iter().map(size).sum();
    let mut expired = Vec::new();
    for row in rows.iter().filter(|row| row.get(2)) {
        // Known of a segment that is no longer written to; if it were not, it would stay.
        let newest = row
            .get::<_, Option<i64>>(1)
            .map_or(reading, from_stored_number);
        let is_old = reading >= newest.saturating_add(milliseconds(retention.max_age));
        if !is_old && bytes <= retention.max_bytes {
            break;
        }
        bytes = bytes.saturating_sub(size(row));
        expired.push(Expired {
            segment: row.get(0),
            is_early: reading < newest.saturating_add(milliseconds(EARLY)),
        });
    }
    Ok(expired)
}

/// Drops a segment whose floors are raised; false if another process is at it.
///
/// The whole log is locked for it, which waits for the batches and pages under way and lets later
/// ones wait. Those that were there a moment ago are over; what came since is waited for, not for
/// long, and another time if that is not enough.
async fn drop_table(session: &Session, segment: i32) -> Result<bool, Failure> {
    if !is_alone(session).await? {
        return Ok(false);
    }
    session.run(NOT_FOR_LONG).await?;
    session
        .run(&format!("DROP TABLE IF EXISTS log_{segment}"))
        .await?;
    session
        .rows("DELETE FROM segments WHERE n = $1", &[&segment])
        .await?;
    Ok(true)
}
