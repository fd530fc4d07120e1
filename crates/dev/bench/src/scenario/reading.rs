use serde::{Deserialize, Serialize};

use crate::checks::Faults;
use crate::load::{Measured, Opened};
use crate::process::Share;

/// What one run of a scenario on one server showed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Reading {
    pub(crate) posts_per_second: f64,
    pub(crate) events_per_second: f64,
    /// Processor time of all servers, for each delivered event, or for each post
    /// if that is what counts. Microseconds. `None` when the servers are not ours to watch.
    pub(crate) cost: Option<f64>,
    /// The same of the server that streams, where that is a process of its own.
    pub(crate) streaming_cost: Option<f64>,
    /// The same of each server, in the order of their start.
    pub(crate) costs: Vec<f64>,
    /// From publishing to delivery: p50, p99, p99.9. Milliseconds.
    pub(crate) latency: Option<[f64; 3]>,
    /// From a post to its answer: p50, p99. Milliseconds.
    pub(crate) post: Option<[f64; 2]>,
    /// KiB for each stream that was opened: at once, and after two seconds.
    pub(crate) resident: Option<[f64; 2]>,
    /// Until all streams had opened. Milliseconds.
    pub(crate) opening: f64,
    /// Processor time of all servers for each stream that was opened. Microseconds.
    pub(crate) opening_cost: f64,
    /// The load generator while streams opened. Where it was the bottleneck, the time to open
    /// them is its own; the servers' processor time is not.
    pub(crate) opening_load: Share,
    /// From connecting to the stream's beginning: p50, p99. Milliseconds.
    pub(crate) beginning: Option<[f64; 2]>,
    /// What went wrong while streams connected.
    pub(crate) connecting: Option<Connecting>,
    /// Reads of history while streams resumed, for each channel; where the server counts them.
    pub(crate) history_reads: Option<f64>,
    /// `resident` of the server that streams alone.
    pub(crate) streaming_resident: Option<[f64; 2]>,
    pub(crate) churn: Option<Churn>,
    /// From the end of the window to the last delivery. Milliseconds. Of a load in a closed loop the
    /// latency is that of what was delivered before.
    pub(crate) drain: f64,
    /// Processors that the server that streams used in the window, e.g. 0.5 is half of one.
    pub(crate) streaming_share: Option<f64>,
    /// Processors that all servers used in the window.
    pub(crate) servers: f64,
    /// Processors that other programs of the machine used in the window: they make a reading worse
    /// than the server is.
    pub(crate) others: f64,
    pub(crate) faults: Faults,
    pub(crate) refused: u64,
    pub(crate) load: Share,
}

/// What went wrong while streams connected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Connecting {
    /// Streams that were opened a second.
    pub(crate) per_second: f64,
    /// Connections that were refused or reset before the stream began.
    pub(crate) refused: u64,
    /// Connections that took over 900 ms: the kernel sends a lost SYN again after a second.
    pub(crate) slow: u64,
    /// SYNs sent again, on the whole machine.
    pub(crate) syn_retransmits: u64,
    /// Connections that found a full accept queue, on the whole machine.
    pub(crate) overflows: u64,
}

/// Memory before and after many connects and leaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Churn {
    /// Streams that opened and were left.
    pub(crate) connects: u64,
    /// Resident, of all processes. KiB.
    pub(crate) before: f64,
    pub(crate) after: f64,
    /// Streams that opened and were left in a second.
    pub(crate) per_second: f64,
}

impl Reading {
    pub(super) fn of(measured: &Measured) -> Self {
        let window = measured.window.as_secs_f64().max(f64::EPSILON);
        let latency = |part| measured.latency.quantile(part);
        let post = |part| measured.post.quantile(part);
        Self {
            posts_per_second: measured.posted as f64 / window,
            events_per_second: measured.in_window as f64 / window,
            latency: latency(0.5)
                .zip(latency(0.99))
                .zip(latency(0.999))
                .map(|((median, p99), p999)| [median, p99, p999]),
            post: post(0.5).zip(post(0.99)).map(|(median, p99)| [median, p99]),
            drain: measured.drain.as_secs_f64() * 1e3,
            faults: measured.faults,
            refused: measured.refused,
            load: measured.own,
            ..Self::default()
        }
    }

    /// Adds how streams opened: with these seconds of processor time of the servers.
    pub(super) fn with_opening(self, opened: &Opened, spent: f64, streams: usize) -> Self {
        let part = |part| opened.beginning.quantile(part);
        Self {
            opening: opened.took.as_secs_f64() * 1e3,
            opening_cost: spent * 1e6 / streams.max(1) as f64,
            opening_load: opened.own,
            beginning: part(0.5).zip(part(0.99)).map(|(median, p99)| [median, p99]),
            ..self
        }
    }

    /// In one line, for whoever waits for the table.
    pub(crate) fn summary(&self) -> String {
        if let Some(churn) = self.churn {
            return format!(
                "{} came and went, {:.0}/s; {:.0} KiB before, {:.0} after",
                churn.connects, churn.per_second, churn.before, churn.after
            );
        }
        let busy = |share: Share| {
            let [working, waiting] = [share.working, share.waiting].map(|part| part * 100.0);
            format!("load worked {working:.0} %, waited {waiting:.0} %")
        };
        let mut parts = Vec::new();
        if let Some([at_once, settled]) = self.resident {
            parts.push(format!("{at_once:.1} KiB a stream, {settled:.1} settled"));
        }
        if self.cost.is_none() && self.events_per_second > 0.0 {
            parts.push(format!("{:.0} events/s", self.events_per_second));
            parts.push(busy(self.opening_load));
        } else if self.cost.is_none() {
            parts.push(format!(
                "opened in {:.0} ms, {:.1} µs each",
                self.opening, self.opening_cost
            ));
            if let Some(Connecting {
                refused,
                slow,
                syn_retransmits,
                overflows,
                ..
            }) = self.connecting
            {
                parts.push(format!(
                    "{refused} refused, {slow} slow, {syn_retransmits} SYNs again, {overflows} overflows"
                ));
            }
            parts.extend(
                self.history_reads
                    .map(|reads| format!("{reads} reads a channel")),
            );
            parts.push(busy(self.opening_load));
        } else {
            let costs: Vec<String> = self.costs.iter().map(|cost| format!("{cost:.1}")).collect();
            parts.push(format!(
                "{:.0} posts/s, {:.0} events/s, {:.1} µs ({})",
                self.posts_per_second,
                self.events_per_second,
                self.cost.unwrap_or_default(),
                costs.join(" + "),
            ));
            let latency = self.latency.map(|[median, p99, _]| (median, p99));
            let post = self.post.map(|[median, p99]| (median, p99));
            if let Some((median, p99)) = latency.or(post) {
                parts.push(format!("p50 {median:.1} ms, p99 {p99:.1} ms"));
            }
            parts.push(format!("drained in {:.0} ms", self.drain));
            if let Some(share) = self.streaming_share {
                parts.push(format!("streaming used {share:.2} processors"));
            }
            parts.push(busy(self.load));
            parts.push(format!("others used {:.2} processors", self.others));
        }
        if !self.faults.is_none() || self.refused > 0 {
            parts.push(format!("{:?}, {} posts refused", self.faults, self.refused));
        }
        parts.join("; ")
    }

    /// Whether the load generator may have been the bottleneck: then its figures
    /// say nothing about the server. Servers that used up their processor were it themselves.
    pub(crate) fn is_of_the_load(&self) -> bool {
        /// As nearly as a window can be measured.
        const ALL_OF_ONE: f64 = 0.97;
        self.load.is_saturated() && self.servers < ALL_OF_ONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_load_generator_counts_only_against_servers_with_time_left() {
        let reading = |working, servers| Reading {
            load: Share {
                working,
                waiting: 0.0,
            },
            servers,
            ..Reading::default()
        };
        assert!(reading(0.95, 0.5).is_of_the_load());
        assert!(!reading(0.95, 0.99).is_of_the_load());
        assert!(!reading(0.5, 0.5).is_of_the_load());
    }
}
