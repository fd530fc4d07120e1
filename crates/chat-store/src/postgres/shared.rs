//! What the store's tasks and its callers both see.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::watch;

use crate::counters::Counters;
use crate::expiry_clock::ExpiryClock;
use crate::follower::Follower;
use crate::{Position, StoreStats};

#[derive(Default)]
pub(super) struct Shared {
    /// Up to where this process's lane is published; `None` until it has one. Those who watch are told
    /// when it has moved within a lane.
    pub(super) mark: watch::Sender<Option<Position>>,
    pub(super) follower: Follower,
    pub(super) counters: Counters,
    /// Known from the first connection on.
    pub(super) expiry: OnceLock<ExpiryClock>,
    /// Bytes of all tables, when retention last looked.
    pub(super) bytes: AtomicU64,
}

impl Shared {
    pub(super) fn published_to(&self) -> Option<Position> {
        *self.mark.borrow()
    }

    /// Raises the watermark. One of another lane was published by someone who had not yet heard
    /// that this process has lost that lane; whoever took it over publishes it again.
    pub(super) fn mark_published(&self, up_to: Position) {
        self.mark.send_if_modified(|mark| match mark {
            Some(mark) if mark.lane() == up_to.lane() && *mark < up_to => {
                *mark = up_to;
                true
            }
            _ => false,
        });
    }

    /// The lane is now this one. A watermark of the same lane that is already higher stays.
    pub(super) fn set_lane(&self, published_to: Position, newest: u64) {
        self.mark.send_if_modified(|mark| {
            let higher = mark.filter(|mark| mark.lane() == published_to.lane());
            *mark = higher.max(Some(published_to));
            false
        });
        self.counters.newest.store(newest, Relaxed);
    }

    pub(super) fn stats(&self) -> StoreStats {
        let newest = self.counters.newest.load(Relaxed);
        let published = self.published_to().map_or(newest, Position::offset);
        StoreStats {
            unpublished: newest.saturating_sub(published),
            database_bytes: self.bytes.load(Relaxed),
            ..self.counters.snapshot()
        }
    }
}
