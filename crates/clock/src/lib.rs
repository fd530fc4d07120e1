//! A clock that is passed as an argument, so that tests can control it. It tells the time of day and
//! a monotonic time.
#![warn(missing_docs)]

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The moment `millis` milliseconds after 1970-01-01T00:00:00Z.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970-01-01T00:00:00Z; negative before that.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// `duration` later; stops at the largest value.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(whole_millis(duration)))
    }

    /// `duration` earlier; stops at the smallest value.
    #[must_use]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(whole_millis(duration)))
    }

    /// The time from `earlier` to this; zero if `earlier` is in fact later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

fn whole_millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Tells the time. `now` may jump forwards or backwards; `monotonic` never goes back.
pub trait Clock: Send + Sync {
    /// The time of day, in milliseconds.
    fn now(&self) -> Timestamp;

    /// The time since a fixed moment in the life of this process; never decreases.
    fn monotonic(&self) -> Duration;
}

/// A clock that several parts share.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    /// The machine's clock as a [`SharedClock`].
    pub fn shared() -> SharedClock {
        Arc::new(Self)
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let now = SystemTime::now();
        Timestamp(match now.duration_since(UNIX_EPOCH) {
            Ok(after) => whole_millis(after),
            Err(before) => -whole_millis(before.duration()),
        })
    }

    fn monotonic(&self) -> Duration {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    }
}

/// A clock that moves only when told to. Clones show the same time.
#[derive(Clone, Debug, Default)]
pub struct TestClock {
    hands: Arc<Hands>,
}

#[derive(Debug, Default)]
struct Hands {
    now: AtomicI64,
    monotonic: AtomicU64,
}

impl TestClock {
    /// A clock that shows `now`; its monotonic time is zero.
    pub fn new(now: Timestamp) -> Self {
        let clock = Self::default();
        clock.set(now);
        clock
    }

    /// Sets only the time of day, as an administrator or NTP would.
    pub fn set(&self, now: Timestamp) {
        self.hands.now.store(now.0, Ordering::SeqCst);
    }

    /// Moves both times forward by `duration`, in whole milliseconds.
    pub fn advance(&self, duration: Duration) {
        let millis = whole_millis(duration);
        self.hands.now.fetch_add(millis, Ordering::SeqCst);
        self.hands
            .monotonic
            .fetch_add(millis.unsigned_abs(), Ordering::SeqCst);
    }

    /// This clock as a [`SharedClock`]; it follows later changes to `self`.
    pub fn shared(&self) -> SharedClock {
        Arc::new(self.clone())
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.hands.now.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.hands.monotonic.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_clock_moves_only_when_told() {
        let clock = TestClock::new(Timestamp::from_millis(1_000));
        let shared = clock.shared();
        assert_eq!(shared.now().as_millis(), 1_000);
        clock.advance(Duration::from_secs(2));
        assert_eq!(shared.now().as_millis(), 3_000);
        assert_eq!(shared.monotonic(), Duration::from_secs(2));
        clock.set(Timestamp::from_millis(500));
        assert_eq!(
            shared.monotonic(),
            Duration::from_secs(2),
            "setting the time of day does not move the monotonic time"
        );
    }

    #[test]
    fn time_before_another_is_no_time_ago() {
        let earlier = Timestamp::from_millis(10);
        let later = earlier.saturating_add(Duration::from_millis(5));
        assert_eq!(later.since(earlier), Duration::from_millis(5));
        assert_eq!(earlier.since(later), Duration::ZERO);
    }
}
