//! Handing what is committed to the one who publishes it.

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::mpsc;

use crate::Unpublished;

type Sender = mpsc::Sender<Vec<Unpublished>>;

/// The one follower of a store; see [`Outbox::follow`](crate::Outbox::follow).
#[derive(Default)]
pub(crate) struct Follower(Mutex<Option<Sender>>);

impl Follower {
    pub(crate) fn follow(&self, batches: usize) -> mpsc::Receiver<Vec<Unpublished>> {
        let (sender, receiver) = mpsc::channel(batches.max(1));
        *self.lock() = Some(sender);
        receiver
    }

    /// Hands over a batch; a follower whose queue is full is let go, and finds its end.
    pub(crate) fn tell(&self, batch: impl FnOnce() -> Vec<Unpublished>) {
        let mut follower = self.lock();
        let Some(sender) = follower.as_ref() else {
            return;
        };
        if sender.try_send(batch()).is_err() {
            *follower = None;
        }
    }

    /// Ends following, because something was committed that the follower is not told of.
    pub(crate) fn let_go(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Sender>> {
        self.0.lock()
    }
}
