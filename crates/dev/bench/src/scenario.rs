//! What is put on each server, and what is read from it.

mod cores;
mod list;
mod reading;

use std::io;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::load::{Begin, Load, Opened, Pace};
use crate::metrics;
use crate::netstat::Connections;
use crate::peers::{Running, listens};
use crate::process::{Sample, Share, machine_time};
use crate::server::Server;
pub(crate) use list::all;
pub(crate) use reading::{Churn, Connecting, Reading};

/// What a load is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Counts {
    /// Memory, and the cost of opening a stream.
    Streams,
    #[default]
    Events,
    Posts,
}

/// Between the last stream that opened and the second look at the memory.
const SETTLE: Duration = Duration::from_secs(2);
/// Streams that come and go before the memory is looked at for the first time.
const FIRST_GUESTS: u64 = 10_000;
/// How long streams may come and go.
const CHURN: Duration = Duration::from_secs(120);
/// Counts reads of history of a broadcast-sse.
const HISTORY_READS: &str = "hark_sse_history_reads_total";

/// One load.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    /// What the targets of the report (report/targets) know it by.
    pub(crate) id: &'static str,
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) streams: usize,
    pub(crate) channels: usize,
    pub(crate) publishers: usize,
    /// Bytes.
    pub(crate) payload: usize,
    /// While posts are made.
    pub(crate) window: Duration,
    /// Where streams begin, unless they resume.
    pub(crate) begin: Begin,
    /// The servers that it makes sense for.
    pub(crate) servers: &'static [&'static str],
    /// It is long, and one round of it is enough.
    pub(crate) once: bool,
    /// Part of a quick run.
    pub(crate) quick: bool,
}

/// What happens in a scenario.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    /// Streams open, get one message each if there are publishers, and are idle: memory is what counts.
    Idle,
    /// Streams open at a pace.
    Connect(Pace),
    /// Streams continue so many events behind, at a node of their own that has none of them in
    /// memory, or at that where they were.
    Resume { behind: u32, cold: bool },
    /// So many streams open and are left at once.
    Churn(u64),
    /// Streams open and hear what the server sends of itself: what the load generator can do.
    Listen,
    /// Streams open, then publishers publish.
    Flow(Pace),
    /// The same at a pace that keeps so many processors busy, and so many are given to the
    /// server that streams.
    Processors(u32),
}

impl Scenario {
    /// What it is about.
    pub(crate) fn counts(&self) -> Counts {
        match self.kind {
            Kind::Flow(_) if self.streams < self.channels => Counts::Posts,
            Kind::Flow(_) | Kind::Processors(_) | Kind::Listen => Counts::Events,
            _ => Counts::Streams,
        }
    }

    /// Whether the server must keep what is published.
    pub(crate) fn needs_history(&self) -> bool {
        matches!(self.kind, Kind::Resume { .. })
    }

    /// Runs it once. `run` makes its channels different from those of other runs
    /// on the same server.
    pub(crate) fn run(&self, running: &Running, run: u32) -> io::Result<Reading> {
        let channels = (0..self.channels)
            .map(|channel| format!("be4c0000-0000-4000-8000-{run:06x}{channel:06x}"))
            .collect();
        let mut load = Load::new(&running.target, channels, self.payload)?;
        match self.kind {
            Kind::Idle => self.stay_idle(running, load),
            Kind::Connect(pace) => self.connect(running, &mut load, pace),
            Kind::Resume { behind, cold } => self.resume(running, load, behind, cold),
            Kind::Churn(count) => come_and_go(running, &mut load, count),
            Kind::Listen => self.listen(load),
            Kind::Flow(pace) => self.flow(running, load, pace),
            Kind::Processors(count) => self.keep_busy(running, load, count),
        }
    }

    fn stay_idle(&self, running: &Running, mut load: Load<'_>) -> io::Result<Reading> {
        let before = samples(running)?;
        let opened = self.open(&mut load)?;
        let after = samples(running)?;
        if self.publishers > 0 {
            load.add_publishers(self.publishers)?;
            load.warm_up()?;
        }
        let each = |now: &[Vec<Sample>], of: fn(&[Vec<Sample>]) -> u64| {
            let more = of(now).saturating_sub(of(&before));
            more as f64 / 1024.0 / self.streams.max(1) as f64
        };
        let at_once = samples(running)?;
        load.idle(SETTLE)?;
        let settled = samples(running)?;
        let streaming = [&at_once, &settled].map(|now| each(now, resident_streaming));
        let reading = Reading {
            resident: Some([&at_once, &settled].map(|now| each(now, resident))),
            streaming_resident: running.streaming().map(|_| streaming),
            faults: load.faults(),
            ..Reading::default()
        };
        Ok(reading.with_opening(&opened, total(&before, &after), self.streams))
    }

    fn connect(&self, running: &Running, load: &mut Load<'_>, pace: Pace) -> io::Result<Reading> {
        let kernel = Connections::read()?;
        let before = samples(running)?;
        let opened = load.open_streams(self.streams, self.begin, pace)?;
        let after = samples(running)?;
        let kernel = Connections::read()?.since(kernel);
        let reading = Reading {
            connecting: Some(Connecting {
                per_second: self.streams as f64 / opened.connecting.as_secs_f64(),
                refused: opened.refused,
                slow: opened.slow,
                syn_retransmits: kernel.syn_retransmits,
                overflows: kernel.overflows,
            }),
            faults: load.faults(),
            ..Reading::default()
        };
        Ok(reading.with_opening(&opened, total(&before, &after), self.streams))
    }

    fn resume(
        &self,
        running: &Running,
        mut load: Load<'_>,
        behind: u32,
        cold: bool,
    ) -> io::Result<Reading> {
        load.add_publishers(self.publishers)?;
        load.mark()?;
        load.publish_before(behind)?;
        let node = running.node.as_ref().filter(|_| cold);
        let node = node.map(|node| node.start("second")).transpose()?;
        if let Some(node) = &node {
            load.listen_at(listens(node)?);
        }
        let streaming = node.as_ref().or(running.streaming());
        let reads = || {
            let operations = streaming.map(|server| server.address("ops"));
            let operations = operations.transpose()?;
            operations.map_or(Ok(None), |address| metrics::read(address, HISTORY_READS))
        };
        let all = || -> io::Result<_> {
            let mut all = samples(running)?;
            if let Some(node) = &node {
                all.push(node.samples()?);
            }
            Ok(all)
        };
        let (read, before) = (reads()?, all()?);
        let opened = load.resume(self.streams)?;
        let after = all()?;
        let read = reads()?.zip(read).map(|(now, before)| now - before);
        let reading = Reading {
            history_reads: read.map(|read| read / self.channels as f64),
            faults: load.faults(),
            ..Reading::default()
        };
        Ok(reading.with_opening(&opened, total(&before, &after), self.streams))
    }

    fn flow(&self, running: &Running, mut load: Load<'_>, pace: Pace) -> io::Result<Reading> {
        let before = samples(running)?;
        let opened = self.open(&mut load)?;
        let opening = total(&before, &samples(running)?);
        load.add_publishers(self.publishers)?;
        load.warm_up()?;
        let reading = self.watch(running, &mut load, pace)?;
        Ok(reading.with_opening(&opened, opening, self.streams))
    }

    fn watch(&self, running: &Running, load: &mut Load<'_>, pace: Pace) -> io::Result<Reading> {
        let machine = machine_time()?;
        let before = samples(running)?;
        load.publish_for(pace, self.window)?;
        let at_end = samples(running)?;
        let machine = machine_time()?.saturating_sub(machine);
        let measured = load.finish(pace)?;
        let after = samples(running)?;
        let posts = self.counts() == Counts::Posts;
        let count = if posts {
            measured.posted
        } else {
            measured.delivered
        };
        let each = |seconds: f64| seconds * 1e6 / count.max(1) as f64;
        let costs: Vec<f64> = spent(&before, &after).into_iter().map(each).collect();
        let streaming = running.streaming().and(costs.last().copied());
        let in_window = spent(&before, &at_end);
        let window = measured.window.as_secs_f64();
        let share = in_window.last().map(|seconds| seconds / window);
        let servers = in_window.iter().sum::<f64>() / window;
        let ours = servers + measured.own.working;
        Ok(Reading {
            servers,
            cost: (!costs.is_empty()).then(|| costs.iter().sum()),
            streaming_cost: streaming.filter(|_| !posts),
            streaming_share: running.streaming().and(share),
            costs,
            others: (machine.as_secs_f64() / window - ours).max(0.0),
            ..Reading::of(&measured)
        })
    }

    fn listen(&self, mut load: Load<'_>) -> io::Result<Reading> {
        self.open(&mut load)?;
        let measured = load.listen_for(self.window)?;
        let reading = Reading::of(&measured);
        // That it is the bottleneck is the point.
        Ok(Reading {
            opening_load: reading.load,
            load: Share::default(),
            ..reading
        })
    }

    fn open(&self, load: &mut Load<'_>) -> io::Result<Opened> {
        if let Begin::Newest(count) = self.begin {
            load.add_publishers(1)?;
            load.publish_before(count)?;
        }
        load.open_streams(self.streams, self.begin, Pace::ClosedLoop)
    }
}

fn come_and_go(running: &Running, load: &mut Load<'_>, count: u64) -> io::Result<Reading> {
    let memory = |load: &mut Load<'_>| {
        load.idle(SETTLE)?;
        Ok::<_, io::Error>(resident(&samples(running)?) as f64 / 1024.0)
    };
    // What a server keeps for good is there after the first ones.
    load.come_and_go(FIRST_GUESTS.min(count), CHURN)?;
    let before = memory(load)?;
    let begin = Instant::now();
    let connects = load.come_and_go(count, CHURN)?;
    let per_second = connects as f64 / begin.elapsed().as_secs_f64();
    Ok(Reading {
        churn: Some(Churn {
            connects,
            before,
            after: memory(load)?,
            per_second,
        }),
        faults: load.faults(),
        ..Reading::default()
    })
}

/// For each server, one sample of each of its processes.
fn samples(running: &Running) -> io::Result<Vec<Vec<Sample>>> {
    running.servers.iter().map(Server::samples).collect()
}

fn resident(samples: &[Vec<Sample>]) -> u64 {
    samples.iter().flatten().map(|sample| sample.resident).sum()
}

/// Of the server that streams.
fn resident_streaming(samples: &[Vec<Sample>]) -> u64 {
    samples
        .last()
        .map_or(0, |last| resident(std::slice::from_ref(last)))
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

/// Seconds of processor time of all servers.
fn total(before: &[Vec<Sample>], after: &[Vec<Sample>]) -> f64 {
    spent(before, after).iter().sum()
}
