use std::sync::Arc;
use std::time::Instant;

use super::Channel;
use crate::hub::reader::{Reader, Start};
use crate::hub::waker::Waker;

/// What happens to a channel whose listener has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::hub) enum Left {
    /// Somebody still listens, or it already lingers.
    Stays,
    /// It stays for a while, for listeners that return.
    Lingers,
    /// It has no log, so there is nothing to keep.
    Goes,
}

impl Channel {
    /// Adds a waker and returns a reader for its listener. Also returns since when the channel has
    /// lingered.
    pub(in crate::hub) fn join(
        &self,
        waker: Arc<dyn Waker>,
        start: Start,
    ) -> (usize, Reader, Option<Instant>) {
        let mut state = self.lock();
        let idle_since = state.idle_since.take();
        let reader = Reader::new(self.id, start, state.tail.mark());
        (state.wakers.insert(waker), reader, idle_since)
    }

    /// Removes the waker. Returns whether it was the last.
    pub(in crate::hub) fn leave(&self, waker: usize) -> bool {
        let mut state = self.lock();
        state.wakers.remove(waker);
        state.wakers.is_empty()
    }

    /// Decides what happens to the channel after its last listener has left.
    pub(in crate::hub) fn left(&self, now: Instant) -> Left {
        let mut state = self.lock();
        if !state.wakers.is_empty() || state.idle_since.is_some() || state.gone {
            return Left::Stays;
        }
        // A channel whose head is not known yet goes too. Clients that name channels at random leave
        // before the store has answered, and such channels would displace those with a log. All that is
        // lost is a subscription, and a listener that returns brings its own position.
        let has_log = state.tail.known().is_some_and(|known| known.seq > 0);
        if !has_log && state.tail.cost() == 0 {
            return Left::Goes;
        }
        state.idle_since = Some(now);
        Left::Lingers
    }

    /// Forgets the channel. Its subscription ends at once unless it `lingers`.
    pub(in crate::hub) fn go(&self, lingers: bool) {
        let mut state = self.lock();
        state.gone = true;
        if let Some(at) = state.alarm.take() {
            self.shared.tasks.let_sleep(self.id, at);
        }
        match state.subscription.take() {
            Some(subscription) if !lingers => subscription.leave_at_once(),
            subscription => drop(subscription),
        }
    }

    /// Whether the node has forgotten the channel: nobody listens, and nobody will.
    pub(in crate::hub) fn is_gone(&self) -> bool {
        self.lock().gone
    }
}
