//! Epochs of all logs, and when they get a new one.
//!
//! A server that took over from another, or was put back from a copy, may lack the newest events of
//! any log; their numbers will be used again. So every connection, before it does anything else,
//! compares where it is (the server's identifier, its timeline, the table itself, which a dump that
//! is put back makes anew) with where the logs were last written. If that differs, all logs get a
//! new epoch.
//!
//! That costs one row, whatever the number of channels: an incarnation of the whole store. Each log
//! begins it after its head, as is written down with its next event. In the meantime its head does
//! not move: an append that began before holds the lock that the new incarnation waits for.

use chat_model::{Epoch, EpochStart, Seq};

use super::{
    batch::from_stored_number,
    connection::{Connector, NoSession},
    failure::Failure,
    session::Session,
};
use crate::expiry_clock::now;

/// Epochs that a log's list has at most; the oldest go.
const LONGEST_LIST: usize = 64;

/// Held (shared) by every append, so that whoever holds it alone knows that none is under way: for
/// a new incarnation, and for a new segment.
macro_rules! append_lock {
    () => {
        "(hashtext('hark'), hashtext('append'))"
    };
}
pub(super) use append_lock;

const ORIGIN: &str = "SELECT format('%s/%s/%s',
        (SELECT system_identifier FROM pg_control_system()),
        left(pg_walfile_name(pg_current_wal_lsn()), 8),
        'hark.state'::regclass::oid) AS origin";

/// Gives all logs a new epoch if this is not where they were last written.
pub(super) async fn check_origin(
    connector: &Connector,
    session: &Session,
) -> Result<(), NoSession> {
    let known = session
        .seldom(
            &format!("SELECT here.origin, state.origin IS NOT DISTINCT FROM here.origin FROM state, ({ORIGIN}) here"),
            &[],
        )
        .await
        .map_err(|failure| explain(connector, failure))?;
    if known[0].get::<_, bool>(1) {
        return Ok(());
    }
    let here: String = known[0].get(0);
    let now = now(&connector.options.clock);
    let moved = session
        .transaction(async {
            lock_alone(session).await?;
            let before = session.seldom("SELECT origin FROM state", &[]).await?;
            let before: Option<String> = before[0].get(0);
            if before.as_ref() == Some(&here) {
                return Ok(None);
            }
            if before.is_some() {
                begin_epoch(session, now).await?;
            }
            session
                .seldom("UPDATE state SET origin = $1", &[&here])
                .await?;
            Ok(before)
        })
        .await?;
    if let Some(before) = moved {
        tracing::warn!(
            database = connector.database,
            before,
            here,
            "the database is another one than before, or on another timeline: all logs have a new epoch"
        );
    }
    Ok(())
}

fn explain(connector: &Connector, failure: Failure) -> NoSession {
    match failure {
        Failure::Refused(refusal) => connector.refuse(format!(
            "{}; the user must be able to read and write the tables of the schema hark, and to run \
             pg_control_system and pg_walfile_name",
            refusal.reason
        )),
        other => other.into(),
    }
}

async fn lock_alone(session: &Session) -> Result<(), Failure> {
    session
        .run(concat!("SELECT pg_advisory_xact_lock", append_lock!()))
        .await
}

/// A new incarnation, while no append is under way. It takes no longer for many channels: nobody can
/// connect to a server that took over before it is done.
async fn begin_epoch(session: &Session, now: u64) -> Result<(), Failure> {
    let rows = session
        .seldom(
            "SELECT incarnations, greatest(forgotten, (SELECT max(epoch) FROM channels)) FROM state",
            &[],
        )
        .await?;
    let mut incarnations: Vec<i64> = rows[0].get(0);
    let newest = incarnations
        .iter()
        .copied()
        .max()
        .unwrap_or(0)
        .max(rows[0].get(1));
    incarnations.push(to_stored(Epoch::after(from_stored(newest), now)));
    let surplus = incarnations.len().saturating_sub(LONGEST_LIST);
    incarnations.drain(..surplus);
    session
        .seldom("UPDATE state SET incarnations = $1", &[&incarnations])
        .await?;
    Ok(())
}

/// A new epoch for all logs because an operator wants it.
pub(super) async fn new_epoch(session: &Session, now: u64) -> Result<(), Failure> {
    session
        .transaction(async {
            lock_alone(session).await?;
            begin_epoch(session, now).await
        })
        .await
}

/// The number of logs, whatever time it takes to count them.
pub(super) async fn count_logs(session: &Session) -> Result<u64, Failure> {
    session
        .transaction(async {
            session.run("SET LOCAL statement_timeout = 0").await?;
            let count = "SELECT count(*) FROM channels WHERE epoch > 0";
            Ok(from_stored_number(session.long(count).await?[0].get(0)))
        })
        .await
}

/// The epochs of one log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Epochs {
    pub(super) list: Vec<EpochStart>,
}

impl Epochs {
    pub(super) fn from_row(epochs: &[i64], starts: &[i64]) -> Self {
        let starts = epochs.iter().zip(starts).map(|(&epoch, &from)| EpochStart {
            epoch: from_stored(epoch),
            from: from_stored_number(from),
        });
        Self {
            list: starts.collect(),
        }
    }

    /// Adds the incarnations that began since its last event. Whether there were any.
    pub(super) fn complete(&mut self, incarnations: &[i64], head: Seq) -> bool {
        // A log that has not begun has no epoch.
        let Some(last) = self.list.last().map(|last| last.epoch) else {
            return false;
        };
        let before = self.list.len();
        let later = incarnations.iter().map(|&epoch| from_stored(epoch));
        self.list
            .extend(later.filter(|&epoch| epoch > last).map(|epoch| EpochStart {
                epoch,
                from: head + 1,
            }));
        let changed = self.list.len() > before;
        let surplus = self.list.len().saturating_sub(LONGEST_LIST);
        self.list.drain(..surplus);
        changed
    }

    /// Begins a log, and returns its epoch: never an older one than what was given to all, and a later
    /// one than `forgotten`, which this log may have had before.
    pub(super) fn begin(&mut self, incarnations: &[i64], forgotten: Epoch, now: u64) -> Epoch {
        let last = incarnations
            .last()
            .map_or(Epoch::ZERO, |&last| from_stored(last));
        let epoch = last.max(Epoch::after(forgotten, now));
        self.list.push(EpochStart { epoch, from: 1 });
        epoch
    }

    pub(super) fn current(&self) -> Option<Epoch> {
        self.list.last().map(|last| last.epoch)
    }

    /// As arrays of the database, in their text form.
    pub(super) fn to_text(&self) -> (String, String) {
        let join = |numbers: Vec<String>| format!("{{{}}}", numbers.join(","));
        (
            join(
                self.list
                    .iter()
                    .map(|e| e.epoch.value().to_string())
                    .collect(),
            ),
            join(self.list.iter().map(|e| e.from.to_string()).collect()),
        )
    }
}

/// An epoch as the database keeps it; what is none counts as that before all others.
pub(super) fn from_stored(value: i64) -> Epoch {
    u64::try_from(value)
        .ok()
        .and_then(Epoch::from_value)
        .unwrap_or(Epoch::ZERO)
}

pub(super) fn to_stored(epoch: Epoch) -> i64 {
    i64::try_from(epoch.value()).expect("an epoch has 49 bits")
}
