use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use chat_model::ChannelId;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

/// The channels that have something to do, now or later. An idle channel costs nothing here.
#[derive(Default)]
pub(super) struct TaskQueue {
    list: Mutex<List>,
    /// Notified when the list has become longer.
    waker: Notify,
}

#[derive(Default)]
struct List {
    due: VecDeque<ChannelId>,
    alarms: BTreeSet<(Instant, ChannelId)>,
}

impl TaskQueue {
    /// Adds a channel to be checked now. The channel must make sure that it is in the list only once.
    pub(super) fn add(&self, channel: ChannelId) {
        self.lock().due.push_back(channel);
        self.waker.notify_one();
    }

    /// Schedules a check of this channel, in place of an earlier schedule. Called by maintenance.
    pub(super) fn wake(&self, channel: ChannelId, at: Instant, instead_of: Option<Instant>) {
        let mut list = self.lock();
        if let Some(other) = instead_of {
            list.alarms.remove(&(other, channel));
        }
        list.alarms.insert((at, channel));
    }

    /// Cancels a scheduled check of this channel.
    pub(super) fn let_sleep(&self, channel: ChannelId, at: Instant) {
        self.lock().alarms.remove(&(at, channel));
    }

    /// At most `max` channels that must be checked now.
    pub(super) fn take(&self, max: usize, now: Instant) -> Vec<ChannelId> {
        let mut list = self.lock();
        let mut taken = Vec::new();
        while taken.len() < max
            && let Some((at, channel)) = list.alarms.first().copied()
            && at <= now
        {
            list.alarms.pop_first();
            taken.push(channel);
        }
        let due = list.due.len().min(max - taken.len());
        taken.extend(list.due.drain(..due));
        if list.due.capacity() > 4 * (list.due.len() + 1_024) {
            list.due.shrink_to_fit();
        }
        taken
    }

    /// When the next check is due, if nothing is added; `None` if never.
    pub(super) fn next(&self) -> Option<Instant> {
        let list = self.lock();
        match list.due.is_empty() {
            true => list.alarms.first().map(|(at, _)| *at),
            false => Some(Instant::now()),
        }
    }

    /// Makes the waiting task look again.
    pub(super) fn notify(&self) {
        self.waker.notify_one();
    }

    /// Waits until something was added, or [`notify`](Self::notify) was called.
    pub(super) async fn added(&self) {
        self.waker.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock()
    }
}
