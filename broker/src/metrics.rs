use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::guard::GuardState;

/// What the guard counts, as metrics.
pub(crate) struct BrokerCollector {
    guard: Arc<GuardState>,
}

impl BrokerCollector {
    pub(crate) fn new(guard: Arc<GuardState>) -> Self {
        Self { guard }
    }
}

impl fmt::Debug for BrokerCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BrokerCollector")
    }
}

impl Collector for BrokerCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let connections = i64::try_from(self.guard.connections()).unwrap_or(i64::MAX);
        let gauge = ConstGauge::new(connections);
        gauge.encode(encoder.encode_descriptor(
            "hark_broker_connections",
            "MQTT connections that stand now",
            None,
            prometheus_client::metrics::MetricType::Gauge,
        )?)?;
        let refused = ConstCounter::new(self.guard.refused());
        refused.encode(encoder.encode_descriptor(
            "hark_broker_refused_packets",
            "packets that ended their connection",
            None,
            prometheus_client::metrics::MetricType::Counter,
        )?)
    }
}
