//! Whether the store can write, without writing for every question.

use std::time::{Duration, Instant};

use super::database::Failure;

/// How long a success is believed.
const FRESH: Duration = Duration::from_secs(10);

/// Bytes that a probe asks of a disk that was full: room for some of the largest messages, so
/// that readiness does not turn green for the last free page.
const ROOM: u32 = 256 << 10;

pub(super) struct Health {
    last_success: Instant,
    broken: bool,
}

impl Health {
    /// A store that was just opened has been read, not written.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            last_success: now.checked_sub(FRESH).unwrap_or(now),
            broken: false,
        }
    }

    pub(super) fn is_fresh(&self) -> bool {
        !self.broken && self.last_success.elapsed() < FRESH
    }

    /// The sizes to write one after the other to find out.
    pub(super) fn probe(&self) -> impl Iterator<Item = u32> + use<> {
        let large = self.broken.then_some(ROOM);
        large.into_iter().chain([0])
    }

    pub(super) fn succeeded(&mut self) {
        self.last_success = Instant::now();
        if std::mem::replace(&mut self.broken, false) {
            tracing::info!("the store can write again");
        }
    }

    pub(super) fn failed(&mut self, failure: &Failure) {
        if !std::mem::replace(&mut self.broken, true) {
            let error = failure.to_error();
            tracing::error!(%error, "the store cannot write");
        }
    }
}
