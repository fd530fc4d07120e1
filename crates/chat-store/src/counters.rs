use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use chat_model::ChannelId;

use crate::damage::Damage;
use crate::seldom::Seldom;
use crate::{Share, StoreError, StoreStats};

/// What every implementation counts.
///
/// The counters stand alone, so their order towards other memory does not matter (`Relaxed`).
#[derive(Debug, Default)]
pub(crate) struct Counters {
    commits: AtomicU64,
    stored: AtomicU64,
    pub(crate) repeated: AtomicU64,
    refused: AtomicU64,
    pub(crate) failed: AtomicU64,
    largest_batch: AtomicU64,
    commit_micros: AtomicU64,
    longest_commit_micros: AtomicU64,
    pub(crate) queued: AtomicU64,
    /// The newest position committed, in the lane of this process.
    pub(crate) newest: AtomicU64,
    pub(crate) expired: AtomicU64,
    expired_early: AtomicU64,
    pub(crate) channels_forgotten: AtomicU64,
    pub(crate) keys_dropped_early: AtomicU64,
    keys_refused_by_share: AtomicU64,
    keys_refused: AtomicU64,
    pub(crate) keys: AtomicU64,
    pub(crate) damage: Damage,
    keys_complaints: Seldom,
    early_complaints: Seldom,
    quota_complaints: Seldom,
}

impl Counters {
    pub(crate) fn count_commit(&self, messages: u64, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.commits.fetch_add(1, Relaxed);
        self.stored.fetch_add(messages, Relaxed);
        self.largest_batch.fetch_max(messages, Relaxed);
        self.commit_micros.fetch_add(micros, Relaxed);
        self.longest_commit_micros.fetch_max(micros, Relaxed);
    }

    /// Counts a post that the store refused; logs the first of a minute whose key found no room.
    pub(crate) fn count_refused(&self, error: &StoreError) {
        self.refused.fetch_add(1, Relaxed);
        let StoreError::KeysFull { share, .. } = error else {
            return;
        };
        let counter = match share {
            Share::All => &self.keys_refused,
            Share::Sender | Share::Channel => &self.keys_refused_by_share,
        };
        counter.fetch_add(1, Relaxed);
        if let Some(refused) = self.keys_complaints.note(1) {
            tracing::warn!(
                refused,
                "posts with an id or Idempotency-Key get 429: too many {share} are remembered"
            );
        }
    }

    /// Counts events that `max_bytes` has removed though they were [young](crate::retention::EARLY);
    /// the first of a minute are logged.
    pub(crate) fn count_early(&self, events: u64) {
        if events == 0 {
            return;
        }
        self.expired_early.fetch_add(events, Relaxed);
        if let Some(removed) = self.early_complaints.note(events) {
            tracing::warn!(
                removed,
                "messages less than a day old were removed because all together are larger than \
                 store.max_bytes: raise it, or lower limits.bytes_per_second"
            );
        }
    }

    /// The same for what a channel may take.
    pub(crate) fn count_early_of(&self, channel: ChannelId, events: u64) {
        if events == 0 {
            return;
        }
        self.expired_early.fetch_add(events, Relaxed);
        if let Some(removed) = self.quota_complaints.note(events) {
            tracing::warn!(
                removed,
                %channel,
                "messages less than a day old were removed because those of their channel are \
                 larger than store.max_bytes_per_channel: raise it if the channel is to keep more"
            );
        }
    }

    /// The counters at this moment; what they do not have is 0.
    pub(crate) fn snapshot(&self) -> StoreStats {
        StoreStats {
            commits: self.commits.load(Relaxed),
            stored: self.stored.load(Relaxed),
            repeated: self.repeated.load(Relaxed),
            refused: self.refused.load(Relaxed),
            failed: self.failed.load(Relaxed),
            largest_batch: self.largest_batch.load(Relaxed),
            commit_time: Duration::from_micros(self.commit_micros.load(Relaxed)),
            longest_commit: Duration::from_micros(self.longest_commit_micros.load(Relaxed)),
            queued: self.queued.load(Relaxed),
            expired: self.expired.load(Relaxed),
            expired_early: self.expired_early.load(Relaxed),
            channels_forgotten: self.channels_forgotten.load(Relaxed),
            keys_dropped_early: self.keys_dropped_early.load(Relaxed),
            keys_refused_by_share: self.keys_refused_by_share.load(Relaxed),
            keys_refused: self.keys_refused.load(Relaxed),
            keys: self.keys.load(Relaxed),
            damaged: self.damage.numbers(),
            ..StoreStats::default()
        }
    }
}
