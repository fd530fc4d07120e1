//! How long events and senders' keys are kept, for every implementation.

use std::time::Duration;

use crate::OpenError;

/// What an event counts for in the bounds of bytes besides its own length: its row, and its place in
/// the channel.
pub(crate) const EVENT_BYTES: u64 = 64;

/// Younger than this, events are removed early: whoever counts on history had better be told.
pub(crate) const EARLY: Duration = Duration::from_secs(24 * 3600);

/// How long a channel of which nothing is kept is remembered: whoever comes back to it meanwhile finds
/// its head where it was. Then it is forgotten, and begins anew with its next message.
pub(crate) const EMPTY_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

/// Channels of which nothing is kept that are remembered at most. Some 200 bytes each.
pub(crate) const MOST_EMPTY_CHANNELS: u64 = 100_000;

/// When events expire: whichever rule comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Age at which an event expires, by the store's own clock, which no jump of the system's
    /// clock can push forward.
    pub max_age: Duration,
    /// Newest events kept for each channel, at least 1.
    pub max_per_channel: u64,
    /// Bytes of all events, each with 64 for what it takes besides; above it the oldest go,
    /// whatever their channel. At least 1. (PostgreSQL counts its tables with their indexes instead.)
    pub max_bytes: u64,
    /// The same for each channel, at least 1, so that one of them cannot push out what all others
    /// have. The newest event stays, whatever its size.
    pub max_bytes_per_channel: u64,
}

impl Default for Retention {
    /// 30 days, 100,000 events a channel, 10 GiB, 1 GiB a channel.
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(30 * 24 * 3600),
            max_per_channel: 100_000,
            max_bytes: 10 << 30,
            max_bytes_per_channel: 1 << 30,
        }
    }
}

/// How long and how many of the senders' own ids and keys are remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyMemory {
    /// How long a key is remembered.
    pub max_age: Duration,
    /// Keys remembered at most, at least 2. At the bound the oldest go first.
    pub max_count: u64,
    /// The age below which a key is never forgotten; posts with a key are refused instead, at first
    /// those of senders and channels that have more than are left for all others.
    pub min_age: Duration,
}

impl Default for KeyMemory {
    /// 24 hours, 1,000,000 keys (about 100 MB), none younger than an hour forgotten.
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(24 * 3600),
            max_count: 1_000_000,
            min_age: Duration::from_secs(3600),
        }
    }
}

impl Retention {
    pub(crate) fn validate(&self) -> Result<(), OpenError> {
        check_option(
            self.max_per_channel >= 1,
            "retention.max_per_channel",
            "must be at least 1",
        )?;
        // 0 is no limit elsewhere; here it would leave hardly anything.
        check_option(
            self.max_bytes >= 1,
            "retention.max_bytes",
            "must be at least 1",
        )?;
        check_option(
            self.max_bytes_per_channel >= 1,
            "retention.max_bytes_per_channel",
            "must be at least 1",
        )
    }
}

impl KeyMemory {
    pub(crate) fn validate(&self) -> Result<(), OpenError> {
        check_option(self.max_count >= 2, "keys.max_count", "must be at least 2")?;
        check_option(
            self.min_age <= self.max_age,
            "keys.min_age",
            "must not exceed keys.max_age",
        )
    }
}

pub(crate) fn check_option(
    fine: bool,
    option: &'static str,
    reason: &str,
) -> Result<(), OpenError> {
    if fine {
        return Ok(());
    }
    Err(OpenError::BadOption {
        option,
        reason: reason.to_owned(),
    })
}
