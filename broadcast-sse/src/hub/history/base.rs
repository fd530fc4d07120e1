use std::time::Duration;

use http_server::http_client::BaseUrl;
use parking_lot::Mutex;
use tokio::time::Instant;

/// One chat-service.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) url: BaseUrl,
    /// Until when it must not be asked.
    rests_until: Mutex<Option<Instant>>,
}

impl Base {
    pub(super) fn new(url: BaseUrl) -> Self {
        Self {
            url,
            rests_until: Mutex::default(),
        }
    }

    /// How long it must still not be asked.
    pub(super) fn rest(&self) -> Option<Duration> {
        let until = *self.rests_until.lock();
        let left = until?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    pub(super) fn rest_for(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut rests_until = self.rests_until.lock();
        *rests_until = Some(until);
    }
}
