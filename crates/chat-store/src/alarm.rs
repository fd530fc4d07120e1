//! How a store tells that it is of no use any more: one of its tasks or threads has panicked, or what
//! it writes does not reach the disk.

use tokio_util::sync::CancellationToken;

/// Held by each task and dropped with it; rings when that is a panic.
#[derive(Clone, Default)]
pub(crate) struct Alarm(CancellationToken);

impl Alarm {
    /// Rings because of something else that only a new process can mend.
    pub(crate) fn ring(&self) {
        self.0.cancel();
    }

    /// Waits until it rings.
    pub(crate) async fn rings(&self) {
        self.0.cancelled().await;
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.ring();
        }
    }
}
