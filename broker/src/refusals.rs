use std::collections::HashMap;
use std::net::SocketAddr;

use parking_lot::Mutex;
use service_kit::log_limit::LogLimit;
use tracing::warn;

/// Lines in the log about one reason in a minute; a stranger can cause any number.
const LINES: u32 = 5;

/// Tells the log why connections were ended, but only so often.
#[derive(Default)]
pub(crate) struct Refusals(Mutex<HashMap<&'static str, LogLimit>>);

impl Refusals {
    /// Says that a connection was ended, or counts it.
    pub(crate) fn say(&self, reason: &'static str, peer: SocketAddr) {
        if let Some(left_out) = self.allow(reason) {
            warn!(%peer, reason, left_out, "ended a connection");
        }
    }

    /// How many were not told since the last line, if one may be written now.
    fn allow(&self, reason: &'static str) -> Option<u64> {
        let mut all = self.0.lock();
        all.entry(reason)
            .or_insert_with(|| LogLimit::per_minute(LINES))
            .line()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_for_each_reason() {
        let refusals = Refusals::default();
        for _ in 0..LINES {
            assert_eq!(refusals.allow("a"), Some(0));
        }
        assert_eq!(refusals.allow("a"), None);
        assert_eq!(refusals.allow("b"), Some(0));
    }
}
