use tokio::sync::Notify;

/// Woken when there may be something for a listener. It is woken under the channel's lock, so it must
/// be quick; many rings before the listener looks are as good as one.
pub(crate) trait Waker: Send + Sync {
    /// Has the listener look.
    fn notify(&self);
}

impl Waker for Notify {
    fn notify(&self) {
        self.notify_one();
    }
}
