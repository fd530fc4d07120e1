use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::state::State;

/// What the broker counts, as metrics.
pub(crate) struct BrokerCollector {
    state: Arc<State>,
}

impl BrokerCollector {
    pub(crate) fn new(state: Arc<State>) -> Self {
        Self { state }
    }
}

impl fmt::Debug for BrokerCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BrokerCollector")
    }
}

impl Collector for BrokerCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let connections = i64::try_from(self.state.clients.count()).unwrap_or(i64::MAX);
        let gauge = ConstGauge::new(connections);
        gauge.encode(encoder.encode_descriptor(
            "hark_broker_connections",
            "MQTT connections that stand now",
            None,
            prometheus_client::metrics::MetricType::Gauge,
        )?)?;
        let restarts = ConstCounter::new(self.state.restarts.load(Relaxed));
        restarts.encode(encoder.encode_descriptor(
            "hark_broker_restarts",
            "times that the router stopped working and was started again",
            None,
            prometheus_client::metrics::MetricType::Counter,
        )?)?;
        let refused = ConstCounter::new(self.state.shared.guard.refused());
        refused.encode(encoder.encode_descriptor(
            "hark_broker_refused_packets",
            "packets that ended their connection",
            None,
            prometheus_client::metrics::MetricType::Counter,
        )?)
    }
}
