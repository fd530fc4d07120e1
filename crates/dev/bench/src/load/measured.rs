use std::time::{Duration, Instant};

use crate::checks::Faults;
use crate::histogram::Histogram;
use crate::process::Share;

/// What the load generator saw in one window and while it drained.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    /// Posts that were accepted.
    pub(crate) posted: u64,
    /// Posts that were not.
    pub(crate) refused: u64,
    /// Deliveries that the accepted posts call for.
    pub(crate) expected: u64,
    pub(crate) delivered: u64,
    pub(crate) faults: Faults,
    /// From publishing to delivery; of publishers in a closed loop, of what was delivered in the window.
    pub(crate) latency: Histogram,
    /// From a post to its answer.
    pub(crate) post: Histogram,
    /// While posts were made.
    pub(crate) window: Duration,
    /// Deliveries in the window.
    pub(crate) in_window: u64,
    /// From the end of the window to the last delivery; without streams, to the last answer.
    pub(crate) drain: Duration,
    /// The load generator's own time in the window.
    pub(crate) own: Share,
    /// Deliveries are timed now.
    pub(super) times_deliveries: bool,
    pub(super) last: Option<Instant>,
    /// A post was due while no publisher was idle.
    pub(super) waited: bool,
}

impl Measured {
    pub(super) fn outstanding(&self) -> u64 {
        self.expected.saturating_sub(self.delivered)
    }
}
