use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use crate::{
    hub::{Batch, Sent},
    metrics::Metrics,
};

/// Held by a stream as long as it is open.
pub(crate) struct StreamPermit {
    _permit: OwnedSemaphorePermit,
    metrics: Arc<Metrics>,
}

impl StreamPermit {
    pub(crate) fn new(permit: OwnedSemaphorePermit, metrics: Arc<Metrics>) -> Self {
        metrics.streams.inc();
        Self {
            _permit: permit,
            metrics,
        }
    }

    /// Counts what the stream is about to send.
    pub(crate) fn count(&self, batch: &Batch) {
        let mut events = 0;
        for sent in batch {
            match sent {
                Sent::Event(..) => events += 1,
                Sent::Gap(gap, _) => self.metrics.gaps.count(gap.reason),
                Sent::Ready(..) => {}
            }
        }
        self.metrics.events_out.inc_by(events);
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.metrics.streams.dec();
    }
}
