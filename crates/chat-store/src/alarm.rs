//! How a store learns that one of its tasks or threads has panicked.

use tokio_util::sync::CancellationToken;

/// Held by each task and dropped with it; rings when that is a panic.
#[derive(Clone, Default)]
pub(crate) struct Alarm(CancellationToken);

impl Alarm {
    /// Waits until it rings.
    pub(crate) async fn rings(&self) {
        self.0.cancelled().await;
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.cancel();
        }
    }
}
