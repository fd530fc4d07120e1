//! What is put on each server, and what is read from it.

use std::io;
use std::time::Duration;

use crate::checks::Faults;
use crate::dialect::Start;
use crate::load::{Load, Measured, Pace};
use crate::peers::Running;
use crate::process::Share;

/// Above this part of the time at work or waiting for the processor, the load
/// generator was (or may have been) the bottleneck.
const SATURATED: f64 = 0.9;
/// Between the last stream that opened and the second look at the memory.
const SETTLE: Duration = Duration::from_secs(2);

/// One load.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
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
#[derive(Debug, Clone, Default)]
pub(crate) struct Reading {
    pub(crate) posts_per_second: f64,
    pub(crate) events_per_second: f64,
    /// Processor time of all servers, for each delivered event, or for each post
    /// if that is what counts. Microseconds.
    pub(crate) cost: f64,
    /// The same of the server that streams, where that is a process of its own.
    pub(crate) streaming_cost: Option<f64>,
    /// From publishing to delivery: p50, p99, p99.9. Milliseconds.
    pub(crate) latency: Option<[f64; 3]>,
    /// From a post to its answer: p50, p99. Milliseconds.
    pub(crate) post: Option<[f64; 2]>,
    /// KiB for each stream that was opened: at once, and after two seconds.
    pub(crate) resident: Option<[f64; 2]>,
    /// Until all streams had opened. Milliseconds.
    pub(crate) opening: f64,
    pub(crate) faults: Faults,
    pub(crate) refused: u64,
    pub(crate) load: Share,
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
        let before = resident(running)?;
        let mut load = Load::new(&running.target, channels, self.payload)?;
        if let Start::Newest(count) = self.start {
            load.add_publishers(1)?;
            load.publish_before(count)?;
        }
        let opening = load.open_streams(self.streams, self.start)?;
        let mut reading = match self.pace {
            None => Reading {
                resident: Some(self.watch_memory(running, &mut load, before)?),
                faults: Faults {
                    ended: load.ended(),
                    ..Faults::default()
                },
                ..Reading::default()
            },
            Some(pace) => {
                load.add_publishers(self.publishers)?;
                load.warm_up()?;
                self.watch_flow(running, &mut load, pace)?
            }
        };
        reading.opening = opening.as_secs_f64() * 1e3;
        Ok(reading)
    }

    fn watch_memory(
        &self,
        running: &Running,
        load: &mut Load<'_>,
        before: u64,
    ) -> io::Result<[f64; 2]> {
        let each = |now: u64| now.saturating_sub(before) as f64 / 1024.0 / self.streams as f64;
        let at_once = each(resident(running)?);
        load.idle(SETTLE)?;
        Ok([at_once, each(resident(running)?)])
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
        let spent: Vec<f64> = before
            .iter()
            .zip(&after)
            .map(|(before, after)| {
                let processes = before.iter().zip(after);
                let spent = processes.map(|(before, after)| after.since(before).total);
                spent.sum::<Duration>().as_secs_f64()
            })
            .collect();
        let streaming = running.streaming().and(spent.last().copied());
        let mut reading = Reading::of(&measured);
        reading.cost = each(spent.iter().sum());
        reading.streaming_cost = streaming.map(each).filter(|_| !self.counts_posts());
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

    /// Whether the load generator may have been the bottleneck: then its figures
    /// say nothing about the server.
    pub(crate) fn is_of_the_load(&self) -> bool {
        self.load.working + self.load.waiting > SATURATED
    }
}

fn samples(running: &Running) -> io::Result<Vec<Vec<crate::process::Sample>>> {
    let servers = running.servers.iter();
    servers.map(crate::server::Server::samples).collect()
}

fn resident(running: &Running) -> io::Result<u64> {
    let samples = samples(running)?;
    Ok(samples.iter().flatten().map(|sample| sample.resident).sum())
}

/// The loads of the side-by-side run.
pub(crate) fn all(quick: bool) -> Vec<Scenario> {
    let window = Duration::from_millis(if quick { 1_500 } else { 10_000 });
    let scenario = |name: &str, streams, channels, publishers, pace| Scenario {
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
        scenario(&format!("{idle} idle streams"), idle, 100, 0, None),
        scenario(
            "1 channel × 1,000 streams, 20 posts/s",
            1_000,
            1,
            4,
            paced(20.0),
        ),
        scenario(
            "1,000 channels × 10 streams, 1,000 posts/s",
            10_000,
            1_000,
            16,
            paced(1_000.0),
        ),
        scenario(
            "1 channel × 1,000 streams, saturated by 16 publishers",
            1_000,
            1,
            16,
            closed,
        ),
        scenario(
            "posts by 64 connections to 100 channels, 1 stream",
            1,
            100,
            64,
            closed,
        ),
    ];
    if !quick {
        all.extend([
            scenario(
                "1 channel × 10,000 streams, 2 posts/s",
                10_000,
                1,
                4,
                paced(2.0),
            ),
            scenario(
                "1 channel × 10,000 streams, saturated by 16 publishers",
                10_000,
                1,
                16,
                closed,
            ),
            scenario(
                "posts by 64 connections to 10,000 channels, 1 stream",
                1,
                10_000,
                64,
                closed,
            ),
            scenario(
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
