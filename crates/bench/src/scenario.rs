//! What is put on each server, and what is read from it.

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::checks::Faults;
use crate::dialect::Start;
use crate::load::{Load, Measured, Pace};
use crate::peers::Running;
use crate::process::{Sample, Share};
use crate::server::Server;

/// Above this part of the time at work or waiting for the processor, the load
/// generator was (or may have been) the bottleneck.
const SATURATED: f64 = 0.9;
/// Between the last stream that opened and the second look at the memory.
const SETTLE: Duration = Duration::from_secs(2);

/// One load.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    /// What the targets of the report (report/targets.rs) know it by: `idle`, `fan-out-1000`,
    /// `fan-out-10000`, `fan-out-channels`, `saturated-1000`, `saturated-10000`, `connect`, `resume`,
    /// `post-100`, `post-10000`, `delay`, `growth-10`, `growth-10000`, `channels`, `churn`, `cores-1`, `cores-2`.
    pub(crate) id: &'static str,
    pub(crate) name: String,
    pub(crate) streams: usize,
    pub(crate) channels: usize,
    pub(crate) publishers: usize,
    /// `None`: nothing is published, memory is what counts.
    pub(crate) pace: Option<Pace>,
    /// Bytes.
    pub(crate) payload: usize,
    pub(crate) window: Duration,
    pub(crate) start: Start,
}

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

impl Scenario {
    /// Whether posts are what counts, not their deliveries.
    pub(crate) fn counts_posts(&self) -> bool {
        self.streams < self.channels
    }

    /// Runs it once. `run` makes its channels different from those of other runs
    /// on the same server.
    pub(crate) fn run(&self, running: &Running, run: u32) -> io::Result<Reading> {
        let channels = (0..self.channels)
            .map(|channel| format!("be4c0000-0000-4000-8000-{run:06x}{channel:06x}"))
            .collect();
        let mut load = Load::new(&running.target, channels, self.payload)?;
        if let Start::Newest(count) = self.start {
            load.add_publishers(1)?;
            load.publish_before(count)?;
        }
        let before = samples(running)?;
        let opening = load.open_streams(self.streams, self.start)?;
        let after = samples(running)?;
        let opening_cost = spent(&before, &after).iter().sum::<f64>();
        let mut reading = match self.pace {
            None => Reading {
                resident: Some(self.watch_memory(running, &mut load, &before)?),
                faults: load.faults(),
                ..Reading::default()
            },
            Some(pace) => {
                load.add_publishers(self.publishers)?;
                load.warm_up()?;
                self.watch_flow(running, &mut load, pace)?
            }
        };
        reading.opening = opening.as_secs_f64() * 1e3;
        reading.opening_cost = opening_cost * 1e6 / self.streams.max(1) as f64;
        Ok(reading)
    }

    fn watch_memory(
        &self,
        running: &Running,
        load: &mut Load<'_>,
        before: &[Vec<Sample>],
    ) -> io::Result<[f64; 2]> {
        let before = resident(before);
        let each = |now: u64| now.saturating_sub(before) as f64 / 1024.0 / self.streams as f64;
        let at_once = each(resident(&samples(running)?));
        load.idle(SETTLE)?;
        Ok([at_once, each(resident(&samples(running)?))])
    }

    fn watch_flow(
        &self,
        running: &Running,
        load: &mut Load<'_>,
        pace: Pace,
    ) -> io::Result<Reading> {
        let before = samples(running)?;
        let measured = load.measure(pace, self.window)?;
        let after = samples(running)?;
        let count = if self.counts_posts() {
            measured.posted
        } else {
            measured.delivered
        };
        let each = |seconds: f64| seconds * 1e6 / count.max(1) as f64;
        let costs: Vec<f64> = spent(&before, &after).into_iter().map(each).collect();
        let streaming = running.streaming().and(costs.last().copied());
        let mut reading = Reading::of(&measured);
        reading.cost = (!costs.is_empty()).then(|| costs.iter().sum());
        reading.streaming_cost = streaming.filter(|_| !self.counts_posts());
        reading.costs = costs;
        Ok(reading)
    }
}

impl Reading {
    fn of(measured: &Measured) -> Self {
        let seconds = measured.elapsed.as_secs_f64().max(f64::EPSILON);
        let quantile = |histogram: &crate::histogram::Histogram, part| {
            histogram
                .quantile(part)
                .map(|value| value.as_secs_f64() * 1e3)
        };
        let latency = |part| quantile(&measured.latency, part);
        let post = |part| quantile(&measured.post, part);
        Self {
            posts_per_second: measured.posted as f64 / measured.window.as_secs_f64(),
            events_per_second: measured.delivered as f64 / seconds,
            latency: latency(0.5)
                .zip(latency(0.99))
                .zip(latency(0.999))
                .map(|((median, p99), p999)| [median, p99, p999]),
            post: post(0.5).zip(post(0.99)).map(|(median, p99)| [median, p99]),
            faults: measured.faults,
            refused: measured.refused,
            load: measured.own,
            ..Self::default()
        }
    }

    /// In one line, for whoever waits for the table.
    pub(crate) fn summary(&self) -> String {
        if let Some([at_once, settled]) = self.resident {
            return format!(
                "{at_once:.1} KiB a stream, {settled:.1} settled; opened in {:.0} ms, {:.0} µs each",
                self.opening, self.opening_cost
            );
        }
        let costs: Vec<String> = self.costs.iter().map(|cost| format!("{cost:.1}")).collect();
        format!(
            "{:.0} posts/s, {:.0} events/s, {:.1} µs ({}); load worked {:.0} %, waited {:.0} %",
            self.posts_per_second,
            self.events_per_second,
            self.cost.unwrap_or_default(),
            costs.join(" + "),
            self.load.working * 100.0,
            self.load.waiting * 100.0,
        )
    }

    /// Whether the load generator may have been the bottleneck: then its figures
    /// say nothing about the server.
    pub(crate) fn is_of_the_load(&self) -> bool {
        self.load.working + self.load.waiting > SATURATED
    }
}

/// For each server, one sample of each of its processes.
fn samples(running: &Running) -> io::Result<Vec<Vec<Sample>>> {
    running.servers.iter().map(Server::samples).collect()
}

fn resident(samples: &[Vec<Sample>]) -> u64 {
    samples.iter().flatten().map(|sample| sample.resident).sum()
}

/// Seconds of processor time of each server.
fn spent(before: &[Vec<Sample>], after: &[Vec<Sample>]) -> Vec<f64> {
    let servers = before.iter().zip(after);
    let spent = servers.map(|(before, after)| {
        let processes = before.iter().zip(after);
        processes.map(|(before, after)| after.since(before)).sum()
    });
    spent.map(|spent: Duration| spent.as_secs_f64()).collect()
}

/// The loads of the side-by-side run.
pub(crate) fn all(quick: bool) -> Vec<Scenario> {
    let window = Duration::from_millis(if quick { 1_500 } else { 10_000 });
    let scenario = |id, name: &str, streams, channels, publishers, pace| Scenario {
        id,
        name: name.to_owned(),
        streams,
        channels,
        publishers,
        pace,
        payload: 100,
        window,
        start: Start::Live,
    };
    let paced = |rate| Some(Pace::PerSecond(rate));
    let closed = Some(Pace::ClosedLoop);
    let idle = if quick { 5_000 } else { 15_000 };
    let mut all = vec![
        scenario("idle", &format!("{idle} idle streams"), idle, 100, 0, None),
        scenario(
            "fan-out-1000",
            "1 channel × 1,000 streams, 20 posts/s",
            1_000,
            1,
            4,
            paced(20.0),
        ),
        scenario(
            "fan-out-channels",
            "1,000 channels × 10 streams, 1,000 posts/s",
            10_000,
            1_000,
            16,
            paced(1_000.0),
        ),
        scenario(
            "saturated-1000",
            "1 channel × 1,000 streams, saturated by 16 publishers",
            1_000,
            1,
            16,
            closed,
        ),
        scenario(
            "post-100",
            "posts by 64 connections to 100 channels, 1 stream",
            1,
            100,
            64,
            closed,
        ),
    ];
    if !quick {
        all.push(Scenario {
            start: Start::Newest(100),
            ..scenario(
                "resume",
                "10,000 streams of 10 channels that resume 100 events behind",
                10_000,
                10,
                0,
                None,
            )
        });
        all.extend([
            scenario(
                "fan-out-10000",
                "1 channel × 10,000 streams, 2 posts/s",
                10_000,
                1,
                4,
                paced(2.0),
            ),
            scenario(
                "saturated-10000",
                "1 channel × 10,000 streams, saturated by 16 publishers",
                10_000,
                1,
                16,
                closed,
            ),
            scenario(
                "post-10000",
                "posts by 64 connections to 10,000 channels, 1 stream",
                1,
                10_000,
                64,
                closed,
            ),
            scenario(
                "delay",
                "1 channel × 100 streams, 500 posts/s",
                100,
                1,
                16,
                paced(500.0),
            ),
        ]);
    }
    all
}
