use std::sync::Arc;

use http_server::operations::Operations;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::gap::GapReason;
use super::lag::Lag;
use super::listener::Sent;
use crate::metrics::PREFIX;

/// Metrics of channels and of what is delivered from them.
#[derive(Default)]
pub(crate) struct HubMetrics {
    /// Channels in memory.
    pub(crate) channels: Gauge,
    /// Bytes of events in memory.
    pub(crate) memory: Gauge,
    /// Events handed to streams; an event counts once for each stream.
    pub(crate) events_out: Counter,
    /// Gaps announced.
    pub(crate) gaps: Gaps,
    /// How late events are.
    pub(crate) lag: Lag,
    /// Events from the broker that made a log longer.
    pub(crate) appended: Counter,
    /// Events from the broker that were already known.
    pub(crate) dropped: Counter,
    /// Events from the broker that arrived before their predecessors.
    pub(crate) early: Counter,
    /// Payloads on a channel's topic that are not events of that channel.
    pub(crate) foreign: Counter,
    /// Numbers with two different events.
    pub(crate) forged: Counter,
    /// Events that the broker lost and history had.
    pub(crate) healed: Counter,
    /// Pages of history read.
    pub(crate) pages_read: Counter,
    /// Reads of history that were avoided.
    pub(crate) reads_saved: ReadsSaved,
    /// Pages of history that could not be read.
    pub(crate) history_errors: Counter,
}

impl HubMetrics {
    /// Registers the metrics with `operations`.
    pub(crate) fn register(operations: &Operations) -> Arc<Self> {
        let mut metrics = Self::default();
        operations.register(|registry| {
            let registry = registry.sub_registry_with_prefix(PREFIX);
            let gauges = [
                ("channels", "Channels in memory", &metrics.channels),
                ("memory_bytes", "Bytes of events in memory", &metrics.memory),
            ];
            for (name, help, gauge) in gauges {
                registry.register(name, help, gauge.clone());
            }
            let counters = [
                (
                    "events_out",
                    "Events handed to streams",
                    &metrics.events_out,
                ),
                (
                    "events_in",
                    "Events from the broker that were next in their log",
                    &metrics.appended,
                ),
                (
                    "events_known",
                    "Events from the broker that were known",
                    &metrics.dropped,
                ),
                (
                    "events_early",
                    "Events from the broker that arrived too early",
                    &metrics.early,
                ),
                (
                    "payloads_ignored",
                    "Payloads that are not an event of their channel",
                    &metrics.foreign,
                ),
                (
                    "events_forged",
                    "Events that contradicted another one with the same number",
                    &metrics.forged,
                ),
                (
                    "events_healed",
                    "Events that only history had",
                    &metrics.healed,
                ),
                (
                    "history_reads",
                    "Pages of history read",
                    &metrics.pages_read,
                ),
                (
                    "history_errors",
                    "Pages of history that could not be read",
                    &metrics.history_errors,
                ),
            ];
            for (name, help, counter) in counters {
                registry.register(name, help, counter.clone());
            }
            metrics.lag.register(registry);
            let gaps = Family::<Reason, Counter>::default();
            registry.register("gaps", "Gaps announced, by reason", gaps.clone());
            metrics.gaps = Gaps::of(&gaps);
            let saved = Family::<By, Counter>::default();
            let help = "Reads of history that were avoided, by what had the events";
            registry.register("history_reads_saved", help, saved.clone());
            metrics.reads_saved = ReadsSaved::of(&saved);
        });
        Arc::new(metrics)
    }

    /// Counts what a listener is about to be sent.
    pub(super) fn count(&self, batch: &[Sent]) {
        let mut events = 0;
        for sent in batch {
            match sent {
                Sent::Event(..) => events += 1,
                Sent::Gap(gap, _) => self.gaps.count(gap.reason),
                Sent::Ready(..) => {}
            }
        }
        self.events_out.inc_by(events);
    }
}

/// Gaps announced, by reason. Each reason exists from the start, at 0.
#[derive(Default)]
pub(crate) struct Gaps {
    retention: Counter,
    epoch: Counter,
    damaged: Counter,
    cursor: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

impl Gaps {
    fn of(family: &Family<Reason, Counter>) -> Self {
        let counter = |reason| family.get_or_create(&Reason { reason }).clone();
        Self {
            retention: counter("retention"),
            epoch: counter("epoch"),
            damaged: counter("damaged"),
            cursor: counter("cursor"),
        }
    }

    /// Counts a gap with this reason.
    fn count(&self, reason: GapReason) {
        let counter = match reason {
            GapReason::Retention => &self.retention,
            GapReason::Epoch => &self.epoch,
            GapReason::Damaged => &self.damaged,
            GapReason::Cursor => &self.cursor,
        };
        counter.inc();
    }
}

/// Reads of history that were avoided. Each kind exists from the start, at 0.
#[derive(Default)]
pub(crate) struct ReadsSaved {
    /// What a listener had missed was in the channel's ring.
    pub(crate) ring: Counter,
    /// The page had already been read for another listener.
    pub(crate) page: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct By {
    by: &'static str,
}

impl ReadsSaved {
    fn of(family: &Family<By, Counter>) -> Self {
        let counter = |by| family.get_or_create(&By { by }).clone();
        Self {
            ring: counter("ring"),
            page: counter("page"),
        }
    }
}
