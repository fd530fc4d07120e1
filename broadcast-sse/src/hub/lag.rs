use std::fmt;
use std::sync::Arc;

use chat_model::{ChannelId, EventView};
use clock::{SharedClock, SystemClock};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tracing::{Level, debug, enabled};

use super::entry::Entry;

/// Upper bounds of the histogram buckets, in seconds. Event times are in whole milliseconds. Polling takes
/// a little more than two seconds; anything longer is an outage.
const BUCKETS: [f64; 14] = [
    0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0,
];

/// Measures how long events took from the store to the listeners of this node. Clones share the numbers.
#[derive(Clone)]
pub(crate) struct Lag {
    seconds: Histogram,
    clock: SharedClock,
}

impl Lag {
    fn new(clock: SharedClock) -> Self {
        Self {
            seconds: Histogram::new(BUCKETS),
            clock,
        }
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "delivery_lag_seconds",
            "Time from storing an event until this node's listeners could have it",
            self.seconds.clone(),
        );
    }

    /// Counts events that were added to the log and reported to the channel's listeners. Each counts once,
    /// however many listeners there are.
    ///
    /// The time of storing comes from another machine's clock; if it lies in the future, the lag is zero.
    pub(super) fn handed_out<'a>(
        &self,
        channel: ChannelId,
        entries: impl Iterator<Item = &'a Arc<Entry>>,
    ) {
        let now = self.clock.now();
        for entry in entries {
            if let Some(at) = entry.at {
                self.seconds.observe(now.since(at).as_secs_f64());
            }
            if enabled!(Level::DEBUG) {
                let line = entry.line();
                // Only for the log; if the line cannot be parsed, it is logged without an id.
                let id = EventView::parse(&line).ok().map(|event| event.id);
                let id = id.map(tracing::field::display);
                debug!(%channel, seq = entry.seq(), id, "handed out to listeners");
            }
        }
    }
}

impl Default for Lag {
    fn default() -> Self {
        Self::new(SystemClock::shared())
    }
}

impl fmt::Debug for Lag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lag").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use chat_model::Seq;
    use clock::{TestClock, Timestamp};
    use prometheus_client::encoding::text::encode;
    use tokio::sync::Notify;

    use super::*;
    use crate::hub::channel::{Channel, Shared};
    use crate::hub::example_log::{channel, entry, head};
    use crate::hub::reader::{Page, Start};
    use crate::hub::tail::{Tail, TailLimits};

    /// How many events were counted, and their lag in total.
    fn counted(lag: &Lag) -> (u64, f64) {
        let mut registry = Registry::default();
        lag.register(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap().trim().to_owned()
        };
        (
            value("delivery_lag_seconds_count").parse().unwrap(),
            value("delivery_lag_seconds_sum").parse().unwrap(),
        )
    }

    #[test]
    fn each_new_event_counts_once_and_what_is_read_again_does_not() {
        let clock = TestClock::new(Timestamp::from_millis(10_000));
        let lag = Lag::new(clock.shared());
        let limits = TailLimits {
            ring_events: 10,
            ring_bytes: 1 << 20,
        };
        let now = Instant::now();
        let shared = Arc::new(Shared {
            lag: lag.clone(),
            ..Shared::default()
        });
        let log = Channel::new(channel(), Tail::new(limits, 0), shared, None, now);
        let hear = |seq, at| log.hear(std::iter::once(entry(seq, at)), |_| ());

        log.answered(log.ask(), &head(3), now);
        hear(4, 9_000);
        assert_eq!(counted(&lag).0, 0, "nobody listens");

        log.join(Arc::new(Notify::new()), Start::Newest(2));
        log.join(Arc::new(Notify::new()), Start::Live);
        hear(5, 9_750);
        assert_eq!(counted(&lag), (1, 0.25), "one event, two listeners");
        hear(5, 9_750);
        let page = |seqs: std::ops::RangeInclusive<Seq>, newest| Page {
            after: seqs.start() - 1,
            head: head(newest),
            entries: seqs.map(|seq| Arc::new(entry(seq, 9_500))).collect(),
        };
        log.page_came(log.ask(), &page(1..=3, 5), now);
        assert_eq!(counted(&lag), (1, 0.25), "both were there before");

        hear(8, 9_500);
        assert_eq!(counted(&lag).0, 1, "it waits for those before it");
        log.fill(log.ask(), &page(6..=7, 8), now);
        assert_eq!(counted(&lag), (4, 1.75), "two healed, one waited");

        hear(9, 60_000);
        assert_eq!(counted(&lag), (5, 1.75), "a clock ahead of ours");
    }
}
