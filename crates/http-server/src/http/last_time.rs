use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

/// When something last happened on a connection, to the millisecond; at first, when this was made.
/// Noted and asked from several places.
#[derive(Debug)]
pub(super) struct LastTime {
    begun: Instant,
    /// In milliseconds since `begun`.
    after: AtomicU64,
}

impl LastTime {
    pub(super) fn now() -> Self {
        Self {
            begun: Instant::now(),
            after: AtomicU64::new(0),
        }
    }

    /// It happens now.
    pub(super) fn note(&self) {
        // The end of 64 bits is far beyond that of any connection.
        let after = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.after.store(after, Relaxed);
    }

    pub(super) fn at(&self) -> Instant {
        self.begun + Duration::from_millis(self.after.load(Relaxed))
    }

    /// How long ago it was.
    pub(super) fn elapsed(&self) -> Duration {
        Instant::now().saturating_duration_since(self.at())
    }
}
