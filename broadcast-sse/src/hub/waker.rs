use tokio::sync::Notify;

/// Notified when there may be something for a listener. This happens under the channel's lock, so it must
/// be quick. Several notifications before the listener looks count as one.
pub(crate) trait Waker: Send + Sync {
    /// Makes the listener look.
    fn notify(&self);
}

impl Waker for Notify {
    fn notify(&self) {
        self.notify_one();
    }
}
