//! The clock by which events and keys expire.

use std::time::Duration;

use clock::SharedClock;

/// How much a time counts in which the service was down, at most.
const LONGEST_PAUSE: u64 = 24 * 3600 * 1000;

/// Milliseconds that pass with the monotonic clock and are kept in the store across restarts.
///
/// The system's clock may jump years ahead (a dead battery, a wrong time server) and must not
/// expire a log by that. So it is only asked how long the service was down, and believed for at
/// most [`LONGEST_PAUSE`].
pub(crate) struct ExpiryClock {
    clock: SharedClock,
    base: u64,
    since: Duration,
}

/// What of the clock is kept in the store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SavedExpiry {
    /// The reading.
    pub(crate) reading: u64,
    /// The system's clock at that moment, in milliseconds since 1970.
    pub(crate) saved_at: u64,
}

impl ExpiryClock {
    /// Goes on from what was saved; `newest` is the reading at which the newest event was kept.
    pub(crate) fn resume(clock: SharedClock, saved: SavedExpiry, newest: u64) -> Self {
        let pause = if saved.saved_at == 0 {
            0
        } else {
            now(&clock)
                .saturating_sub(saved.saved_at)
                .min(LONGEST_PAUSE)
        };
        // Events may have been kept after the last save, before a crash.
        let base = (saved.reading + pause).max(newest);
        let since = clock.monotonic();
        Self { clock, base, since }
    }

    pub(crate) fn reading(&self) -> u64 {
        let passed = self.clock.monotonic().saturating_sub(self.since);
        self.base + milliseconds(passed)
    }

    pub(crate) fn save(&self) -> SavedExpiry {
        SavedExpiry {
            reading: self.reading(),
            saved_at: now(&self.clock),
        }
    }
}

/// The system's time in milliseconds since 1970.
pub(crate) fn now(clock: &SharedClock) -> u64 {
    // A clock before 1970 is as good as one at 1970.
    u64::try_from(clock.now().as_millis()).unwrap_or(0)
}

pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
