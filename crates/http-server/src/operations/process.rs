//! The resource use of the process, under the metric names that Prometheus's own clients use.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use rustix::process::{Resource, getrlimit};

/// Read on each request; values that the system does not provide are left out.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        if let Some(most) = getrlimit(Resource::Nofile).current {
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            encode(
                &mut encoder,
                "process_max_fds",
                "Files that the process may open; every connection takes one",
                &ConstGauge::new(most),
            )?;
        }
        if let Some(bytes) = resident_bytes() {
            encode(
                &mut encoder,
                "process_resident_memory_bytes",
                "Resident memory",
                &ConstGauge::new(bytes),
            )?;
        }
        if let Some(seconds) = processor_seconds() {
            encode(
                &mut encoder,
                "process_cpu_seconds",
                "Processor time, user and system",
                &ConstCounter::new(seconds),
            )?;
        }
        Ok(())
    }
}

fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metric: &impl EncodeMetric,
) -> fmt::Result {
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

/// proc_pid_statm(5): the second number, in pages.
fn resident_bytes() -> Option<i64> {
    let memory = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: i64 = memory.split(' ').nth(1)?.parse().ok()?;
    Some(pages * i64::try_from(rustix::param::page_size()).ok()?)
}

/// proc_pid_stat(5): fields 14 and 15, in ticks. Counted from the end of the name, which may contain
/// spaces.
fn processor_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut fields = after_name.split(' ').skip(11);
    let ticks: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((ticks + system) as f64 / rustix::param::clock_ticks_per_second() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_takes_something() {
        assert!(resident_bytes().unwrap() > 1 << 20);
        assert!(processor_seconds().unwrap() >= 0.0);
        let mut registry = prometheus_client::registry::Registry::default();
        registry.register_collector(Box::new(Process));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for name in [
            "process_max_fds ",
            "process_resident_memory_bytes ",
            "process_cpu_seconds_total ",
        ] {
            assert!(text.contains(name), "{text}");
        }
    }
}
