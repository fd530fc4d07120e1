use std::fmt;
use std::sync::Arc;

use chat_mqtt::Subscriber;
use http_server::operations::Operations;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};

/// The prefix of all metrics of this service.
pub(crate) const PREFIX: &str = "hark_sse";

/// Metrics of streams.
#[derive(Default)]
pub(crate) struct Metrics {
    /// Streams that are open.
    pub(crate) streams: Gauge,
    /// Streams that were told to come back later.
    pub(crate) streams_refused: Counter,
    /// Connections that were closed because their clients did not read.
    pub(crate) listeners_cut: Counter,
}

impl Metrics {
    /// Registers the metrics with `operations`.
    pub(crate) fn register(operations: &Operations) -> Arc<Self> {
        let metrics = Self::default();
        operations.register(|registry| {
            let registry = registry.sub_registry_with_prefix(PREFIX);
            registry.register("streams", "Streams that are open", metrics.streams.clone());
            registry.register(
                "streams_refused",
                "Streams told to come back later",
                metrics.streams_refused.clone(),
            );
            registry.register(
                "listeners_cut",
                "Slow listeners disconnected, by connection",
                metrics.listeners_cut.clone(),
            );
        });
        Arc::new(metrics)
    }
}

/// Reads the subscriber's own counters when metrics are requested.
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
            "Broker connections on which chat-service's heartbeats do not arrive",
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
    let name = format!("{PREFIX}_{name}");
    metric.encode(encoder.encode_descriptor(&name, help, None, metric.metric_type())?)
}
