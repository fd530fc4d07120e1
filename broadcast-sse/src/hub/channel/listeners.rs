use std::sync::Arc;
use std::time::Instant;

use super::Channel;
use crate::hub::reader::{Reader, Start};
use crate::hub::waker::Waker;

/// What becomes of a channel that was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::hub) enum Left {
    /// Somebody listens, or it was left before.
    Stays,
    /// It stays for a while, for those who come back.
    Lingers,
    /// It has no log: there is nothing to keep.
    Goes,
}

impl Channel {
    /// Takes a waker in and gives its listener a reader. Says also since when the channel has
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

    /// Takes the waker out again. Says whether it was the last.
    pub(in crate::hub) fn leave(&self, waker: usize) -> bool {
        let mut state = self.lock();
        state.wakers.remove(waker);
        state.wakers.is_empty()
    }

    /// What becomes of the channel, whose last listener has left.
    pub(in crate::hub) fn left(&self, now: Instant) -> Left {
        let mut state = self.lock();
        if !state.wakers.is_empty() || state.idle_since.is_some() || state.gone {
            return Left::Stays;
        }
        // One whose head is not known yet goes as well: whoever names channels at random leaves before
        // the store has answered, and those with a log would give way to them. There is nothing in
        // it but its subscription, and a listener who comes back brings his own position.
        let has_log = state.tail.known().is_some_and(|known| known.seq > 0);
        if !has_log && state.tail.cost() == 0 {
            return Left::Goes;
        }
        state.idle_since = Some(now);
        Left::Lingers
    }

    /// The node forgets the channel. Unless the subscription `lingers`, it is ended at once.
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

    /// Whether the node has forgotten it: nobody listens, or will.
    pub(in crate::hub) fn is_gone(&self) -> bool {
        self.lock().gone
    }
}
