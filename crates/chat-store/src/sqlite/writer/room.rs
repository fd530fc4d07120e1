//! Whether the disk takes anything, and what is done when it does not.

use std::time::{Duration, Instant};

use service_kit::log_limit::LogLimit;

use super::Writer;
use crate::StoreError;
use crate::sqlite::checkpoint::{Room, empty_log};
use crate::sqlite::database::Failure;
use crate::sqlite::health::probe;

/// A full disk stays so for long.
static NOT_EMPTIED: LogLimit = LogLimit::per_minute(2);

/// Between two attempts to make room by emptying the write-ahead log, for which posts wait.
const PAUSE: Duration = Duration::from_secs(1);

impl Writer {
    /// Fails while the store's reserve cannot be had.
    pub(super) fn expect_room(&mut self) -> Result<(), StoreError> {
        // What the log holds may be all that is needed.
        if self.reserve.has_it() || (self.make_room() && self.reserve.make()) {
            return Ok(());
        }
        let error = StoreError::unavailable(self.reserve.missing());
        self.health.failed(&error);
        Err(error)
    }

    /// Notes that a transaction failed; whether it is worth trying again, since room was made.
    pub(super) fn note_failure(&mut self, failure: &Failure) -> bool {
        self.health.failed(&failure.to_error());
        if matches!(failure, Failure::Unknown(_)) {
            // The follower was not told of messages that may be there; it must read them.
            self.shared.follower.let_go();
        }
        failure.is_disk_full() && self.make_room()
    }

    /// Makes room unless that was tried a moment ago. Whether it was done.
    pub(super) fn make_room(&mut self) -> bool {
        let is_due = self.made_room_at.is_none_or(|at| at.elapsed() >= PAUSE);
        if is_due {
            self.make_room_now();
        }
        is_due
    }

    /// Brings the write-ahead log into the database, which may be all that is needed, by means of
    /// the reserve.
    pub(super) fn make_room_now(&mut self) {
        self.made_room_at = Some(Instant::now());
        self.reserve.release();
        self.empty_log(Room::GivenBack);
    }

    pub(super) fn empty_log(&mut self, room: Room) {
        let shared = &self.shared;
        let emptied = self
            .database
            .direct(|connection| empty_log(connection, shared, room));
        if let Err(error) = emptied
            && let Some(left_out) = NOT_EMPTIED.line()
        {
            tracing::warn!(%error, left_out, "the write-ahead log could not be emptied");
        }
    }

    pub(super) fn ask_checkpoint(&mut self) {
        self.bytes_since_checkpoint = 0;
        self.checkpointer.ask();
        if self.shared.is_log_too_large() {
            self.shared.wish_empty_log();
        }
    }

    /// Whether the store can write: known from the last write, or tried.
    pub(super) fn check(&mut self) -> Result<(), StoreError> {
        self.expect_room()?;
        if self.health.is_fresh() {
            return Ok(());
        }
        for filler in self.health.probe() {
            let probed = self
                .database
                .transaction(|connection, _| probe(connection, filler));
            if let Err(failure) = probed {
                self.note_failure(&failure);
                return Err(failure.to_error());
            }
        }
        self.health.succeeded();
        Ok(())
    }
}
