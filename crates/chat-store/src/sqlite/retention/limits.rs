//! What each channel may keep.

use super::{STEP_BYTES, STEP_EVENTS};
use crate::Retention;
use crate::sqlite::memory::Log;

/// Bounds for one channel.
#[derive(Debug, Clone, Copy)]
pub(in crate::sqlite) struct ChannelLimits {
    pub(super) events: u64,
    pub(super) bytes: u64,
}

impl ChannelLimits {
    pub(super) fn new(retention: &Retention) -> Self {
        Self {
            events: retention.max_per_channel,
            bytes: retention.max_bytes_per_channel,
        }
    }

    /// Whether a log has so much that removing begins: a little above the limit, so that a busy
    /// channel is not trimmed for every single event.
    pub(in crate::sqlite) fn are_exceeded(self, log: &Log) -> bool {
        let events = self.events + (self.events / 10).min(STEP_EVENTS as u64);
        let bytes = self.bytes.saturating_add((self.bytes / 10).min(STEP_BYTES));
        log.head - log.floor > events || log.kept_bytes() > bytes
    }

    /// Whether it has more than it may keep.
    pub(super) fn ask_for_less(self, log: &Log) -> bool {
        log.head - log.floor > self.events || log.kept_bytes() > self.bytes
    }
}
