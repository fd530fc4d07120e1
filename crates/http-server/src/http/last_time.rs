use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

/// When something last happened on a connection, to the millisecond; initially, when this was created.
/// Several places may write and read it.
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

    /// Records that it happens now.
    pub(super) fn note(&self) {
        // No connection lasts long enough to overflow 64 bits.
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
