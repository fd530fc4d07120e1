use tokio::sync::Notify;

/// Rung when there may be something for a listener. It is rung under the channel's lock, so it must
/// be quick; many rings before the listener looks are as good as one.
pub(crate) trait Bell: Send + Sync {
    /// Has the listener look.
    fn ring(&self);
}

impl Bell for Notify {
    fn ring(&self) {
        self.notify_one();
    }
}
