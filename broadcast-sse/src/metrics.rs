use std::{fmt, sync::Arc};

use chat_mqtt::Subscriber;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
};
use service_kit::operations::Operations;

use crate::{frame::GapReason, hub::Lag};

/// What operators are told about streams.
#[derive(Default)]
pub(crate) struct Metrics {
    /// Streams that are open.
    pub(crate) streams: Gauge,
    /// Channels in memory.
    pub(crate) channels: Gauge,
    /// Bytes of events in memory.
    pub(crate) memory: Gauge,
    /// Streams that were told to come back later.
    pub(crate) streams_refused: Counter,
    /// Events, as many times as they were handed to a stream.
    pub(crate) events_out: Counter,
    /// Gaps announced.
    pub(crate) gaps: Gaps,
    /// Connections that were ended because their clients took nothing of what was sent to them.
    pub(crate) listeners_cut: Counter,
    /// How late events are.
    pub(crate) lag: Lag,
    /// Events from the broker that made a log longer.
    pub(crate) appended: Counter,
    /// Events from the broker that were known already.
    pub(crate) dropped: Counter,
    /// Events from the broker that came before their predecessors.
    pub(crate) early: Counter,
    /// Payloads on a channel's topic that are not events of that channel.
    pub(crate) foreign: Counter,
    /// Numbers for which there were two different events.
    pub(crate) forged: Counter,
    /// Events that the broker lost and history had.
    pub(crate) healed: Counter,
    /// Pages of history read.
    pub(crate) pages_read: Counter,
    /// Reads of history that listeners did not cost.
    pub(crate) reads_saved: ReadsSaved,
    /// Pages of history that could not be read.
    pub(crate) history_errors: Counter,
}

impl Metrics {
    /// Metrics that `operations` shows.
    pub(crate) fn register(operations: &Operations) -> Arc<Self> {
        let mut metrics = Self::default();
        operations.register(|registry| {
            let registry = registry.sub_registry_with_prefix("hark_sse");
            let gauges = [
                ("streams", "Streams that are open", &metrics.streams),
                ("channels", "Channels in memory", &metrics.channels),
                ("memory_bytes", "Bytes of events in memory", &metrics.memory),
            ];
            for (name, help, gauge) in gauges {
                registry.register(name, help, gauge.clone());
            }
            let counters = [
                (
                    "streams_refused",
                    "Streams told to come back later",
                    &metrics.streams_refused,
                ),
                (
                    "events_out",
                    "Events handed to streams",
                    &metrics.events_out,
                ),
                (
                    "listeners_cut",
                    "Slow listeners let go, by connection",
                    &metrics.listeners_cut,
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
                    "Events from the broker that came too early",
                    &metrics.early,
                ),
                (
                    "payloads_ignored",
                    "Payloads that are no event of their channel",
                    &metrics.foreign,
                ),
                (
                    "events_forged",
                    "Events that contradicted another one of the same number",
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
            let help = "Reads of history that listeners did not cost, by what had the events";
            registry.register("history_reads_saved", help, saved.clone());
            metrics.reads_saved = ReadsSaved::of(&saved);
        });
        Arc::new(metrics)
    }
}

/// Gaps announced, by reason; there from the beginning, at 0.
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

    /// One more, for this reason.
    pub(crate) fn count(&self, reason: GapReason) {
        let counter = match reason {
            GapReason::Retention => &self.retention,
            GapReason::Epoch => &self.epoch,
            GapReason::Damaged => &self.damaged,
            GapReason::Cursor => &self.cursor,
        };
        counter.inc();
    }
}

/// Reads of history that listeners did not cost; there from the beginning, at 0.
#[derive(Default)]
pub(crate) struct ReadsSaved {
    /// What a listener had missed in a channel was in the channel's ring.
    pub(crate) ring: Counter,
    /// A page had been read for another listener.
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

/// Reads the counters that the subscriber keeps itself, when they are asked for.
#[derive(Clone)]
pub(crate) struct BrokerSide(pub(crate) Subscriber);

impl BrokerSide {
    pub(crate) fn register(self, operations: &Operations) {
        operations.register(|registry| registry.register_collector(Box::new(self)));
    }
}

impl fmt::Debug for BrokerSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerSide").finish_non_exhaustive()
    }
}

impl Collector for BrokerSide {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let counters = self.0.counters();
        for (name, help, value) in [
            (
                "topics_ignored",
                "Messages on topics that name no channel",
                counters.foreign_topics,
            ),
            (
                "payloads_oversize",
                "Messages over the packet limit",
                counters.oversize,
            ),
            (
                "subscriptions_refused",
                "Filters that the broker refused",
                counters.refused_subscriptions,
            ),
            (
                "disconnects",
                "Broker connections that ended",
                counters.disconnects,
            ),
        ] {
            encode(&mut encoder, name, help, &ConstCounter::new(value))?;
        }
        let up = i64::from(self.0.state().borrow().is_up());
        encode(
            &mut encoder,
            "broker_up",
            "1 while the broker can be reached",
            &ConstGauge::new(up),
        )?;
        let deaf = i64::try_from(self.0.deaf_connections()).unwrap_or(i64::MAX);
        encode(
            &mut encoder,
            "broker_deaf_connections",
            "Broker connections to which chat-service's heartbeats do not come",
            &ConstGauge::new(deaf),
        )?;
        let filters = i64::try_from(counters.filters).unwrap_or(i64::MAX);
        encode(
            &mut encoder,
            "filters",
            "Filters subscribed to",
            &ConstGauge::new(filters),
        )
    }
}

fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metric: &impl EncodeMetric,
) -> Result<(), fmt::Error> {
    let name = format!("hark_sse_{name}");
    metric.encode(encoder.encode_descriptor(&name, help, None, metric.metric_type())?)
}
