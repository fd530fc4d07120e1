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
use tokio_postgres::Row;

use super::failure::Failure;
use super::numbers::{from_stored, from_stored_number, to_stored};
use super::session::Session;

/// Epochs that a log's list has at most; the oldest go.
const LONGEST_LIST: usize = 64;

/// Gives all logs a new epoch if this is not where they were last written; returns where that was, and
/// where this is.
pub(super) async fn check_origin(
    session: &Session,
    now: u64,
) -> Result<Option<(Option<String>, String)>, Failure> {
    let moved = "SELECT before, here FROM check_origin($1)";
    let moved = session.rows(moved, &[&fresh(now)]).await?;
    Ok(moved.first().map(|row| (row.get(0), row.get(1))))
}

/// A new epoch for all logs because an operator wants it.
pub(super) async fn begin_epoch(session: &Session, now: u64) -> Result<(), Failure> {
    let begin = "SELECT begin_epoch($1)";
    session.row(begin, &[&fresh(now)]).await.map(drop)
}

fn fresh(now: u64) -> i64 {
    to_stored(Epoch::after(Epoch::ZERO, now))
}

/// The number of logs, whatever time it takes to count them.
pub(super) async fn count_logs(session: Session) -> Result<u64, Failure> {
    let count = "SELECT count(*) FROM channels WHERE epoch > 0";
    let count = session.without_limits().await?.row(count, &[]).await?;
    Ok(from_stored_number(count.get(0)))
}

/// The epochs of one log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Epochs {
    pub(super) list: Vec<EpochStart>,
}

impl Epochs {
    /// From the columns `epochs` and `epoch_starts`.
    pub(super) fn from_row(row: &Row) -> Self {
        let epochs: Vec<i64> = row.get("epochs");
        let starts: Vec<i64> = row.get("epoch_starts");
        let starts = epochs.iter().zip(starts).map(|(&epoch, from)| EpochStart {
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
        let Some(last) = self.current() else {
            return false;
        };
        let before = self.list.len();
        let later = incarnations.iter().map(|&epoch| from_stored(epoch));
        let later = later.filter(|&epoch| epoch > last);
        let from = head + 1;
        self.list
            .extend(later.map(|epoch| EpochStart { epoch, from }));
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
        let array = |number: fn(&EpochStart) -> u64| {
            let numbers = self.list.iter().map(|start| number(start).to_string());
            format!("{{{}}}", numbers.collect::<Vec<_>>().join(","))
        };
        (
            array(|start| start.epoch.value()),
            array(|start| start.from),
        )
    }
}
