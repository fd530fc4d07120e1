use std::sync::Arc;

use chat_mqtt::Publisher;
use chat_store::{Outbox, StoreError};

use super::{Gauges, is_behind};

/// What broadcast-sse is told about publishing, together with the heads.
pub(crate) struct Standing {
    store: Arc<dyn Outbox>,
    gauges: Arc<Gauges>,
    publisher: Publisher,
}

impl Standing {
    pub(crate) fn new(store: Arc<dyn Outbox>, gauges: Arc<Gauges>, publisher: Publisher) -> Self {
        Self {
            store,
            gauges,
            publisher,
        }
    }

    /// Whether listeners may miss something that is stored, because it was not published.
    ///
    /// # Errors
    /// If the store cannot be asked.
    pub(crate) async fn is_behind(&self) -> Result<bool, StoreError> {
        Ok(self.gauges.lately_set_aside() || is_behind(&*self.store).await?)
    }

    /// The names of this process's heartbeats that the broker has recently accepted.
    pub(crate) fn heartbeats(&self) -> Vec<String> {
        self.publisher.heartbeats()
    }
}
