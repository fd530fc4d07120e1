//! What the store's tasks and its callers both see.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::counters::Counters;
use crate::expiry_clock::ExpiryClock;
use crate::follower::Follower;
use crate::{Position, StoreStats};

#[derive(Default)]
pub(super) struct Shared {
    /// Where this process's lane is published to; `None` until it has one.
    published_to: Mutex<Option<Position>>,
    /// The watermark moved.
    pub(super) moved: Notify,
    pub(super) follower: Follower,
    pub(super) counters: Counters,
    /// Known from the first connection on.
    pub(super) expiry: OnceLock<ExpiryClock>,
    /// Bytes of all tables, when retention last looked.
    pub(super) bytes: AtomicU64,
}

impl Shared {
    pub(super) fn published_to(&self) -> Option<Position> {
        *self.lock()
    }

    /// Raises the watermark. One of another lane was published by someone who had not yet heard
    /// that this process has lost that lane; whoever took it over publishes it again.
    pub(super) fn mark_published(&self, up_to: Position) {
        let mut mark = self.lock();
        match mark.as_mut() {
            Some(mark) if mark.lane() == up_to.lane() && *mark < up_to => *mark = up_to,
            _ => return,
        }
        drop(mark);
        self.moved.notify_one();
    }

    /// The lane is now this one. A watermark of the same lane that is already higher stays.
    pub(super) fn set_lane(&self, published_to: Position, newest: u64) {
        let mut mark = self.lock();
        match *mark {
            Some(mark) if mark.lane() == published_to.lane() && mark > published_to => {}
            _ => *mark = Some(published_to),
        }
        drop(mark);
        self.counters.newest.store(newest, Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Position>> {
        self.published_to.lock()
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
