//! Whether the store can write, without writing for every question.

use std::time::{Duration, Instant};

use crate::StoreError;

/// How long a success is believed.
const FRESH: Duration = Duration::from_secs(10);

/// Bytes that a probe asks of a disk that was full, or of which nothing is known yet: room for some
/// of the largest messages, so that readiness is not green for the last free page.
const ROOM: u32 = 256 << 10;

pub(super) struct Health {
    last_success: Instant,
    broken: bool,
    /// Whether it has ever written.
    is_new: bool,
}

impl Health {
    /// A store that was just opened has been read, not written.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            last_success: now.checked_sub(FRESH).unwrap_or(now),
            broken: false,
            is_new: true,
        }
    }

    pub(super) fn is_fresh(&self) -> bool {
        !self.broken && self.last_success.elapsed() < FRESH
    }

    /// The sizes to write one after the other to find out.
    pub(super) fn probe(&self) -> impl Iterator<Item = u32> + use<> {
        let large = (self.broken || self.is_new).then_some(ROOM);
        large.into_iter().chain([0])
    }

    pub(super) fn succeeded(&mut self) {
        self.last_success = Instant::now();
        self.is_new = false;
        if std::mem::replace(&mut self.broken, false) {
            tracing::info!("the store can write again");
        }
    }

    pub(super) fn failed(&mut self, error: &StoreError) {
        if !std::mem::replace(&mut self.broken, true) {
            tracing::error!(%error, "the store cannot write");
        }
    }
}
