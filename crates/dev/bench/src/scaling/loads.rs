use std::fs;
use std::io;
use std::time::{Duration, Instant};

use system_tests::Cluster;
use tokio::runtime::Handle;

use super::parts::{Look, Part};
use crate::checks::Faults;
use crate::load::{Begin, Load, Pace, Target};
use crate::metrics;
use crate::peers::hark_dialect;

const CHANNELS: usize = 100;
/// Posts a second of the loads with many listeners, and of those with few: every part has time
/// left.
const RATE: f64 = 200.0;
const BRISK: f64 = 800.0;
const PUBLISHERS: usize = 64;
/// Streams and senders of a load without a pace.
const SATURATING: usize = 3_000;
const SENDERS: usize = 8;
/// Bytes.
const PAYLOAD: usize = 100;
/// Sets of channels: those that loads with listeners share, so that nobody subscribes and
/// unsubscribes meanwhile; those that nobody listens to; and those of idle streams.
const HEARD: u32 = 1;
const QUIET: u32 = 2;
const IDLE: u32 = 3;
/// Between the last stream that opened and the look at the memory.
const SETTLE: Duration = Duration::from_secs(3);

/// Puts loads on a cluster.
pub(super) struct Bench<'a> {
    cluster: &'a Cluster,
    runtime: &'a Handle,
    window: Duration,
    target: Target,
    /// What each part works without any load: seconds a second.
    pub(super) idle: [(Part, f64); 5],
}

/// What one load cost.
pub(super) struct Flow {
    pub(super) name: String,
    /// A second.
    pub(super) posts: f64,
    /// A second.
    pub(super) events: f64,
    /// Median and 99 % of the time from a post to its answer. Milliseconds.
    pub(super) answered: [f64; 2],
    /// The same, from a post to each delivery; `None` without listeners.
    pub(super) delivered: Option<[f64; 2]>,
    /// Microseconds of processor time for each post: of chat-service, PostgreSQL and the broker.
    pub(super) each_post: [f64; 3],
    /// Microseconds of processor time of broadcast-sse for each event; `None` without listeners.
    pub(super) each_event: Option<f64>,
    /// Microseconds of processor time of nginx for each post and event together.
    pub(super) front: f64,
    /// Posts in one transaction.
    pub(super) batch: f64,
    /// Of the write-ahead log, for each post.
    pub(super) wal_bytes: f64,
    /// Of PostgreSQL's files, for each post.
    pub(super) kept_bytes: f64,
    /// On the loopback device, for each post.
    pub(super) wire_bytes: f64,
    /// On a stream, for each event; `None` without listeners.
    pub(super) event_bytes: Option<f64>,
    pub(super) faults: Faults,
    pub(super) refused: u64,
    /// What part of the time the load generator worked or waited for a processor.
    pub(super) generator: f64,
}

/// What streams keep in memory.
pub(super) struct Memory {
    pub(super) name: String,
    pub(super) streams: usize,
    pub(super) channels: usize,
    /// Bytes of broadcast-sse for each stream.
    pub(super) sse: f64,
    /// Bytes of the kernel for each stream, at this end: half of what both ends take.
    pub(super) kernel: f64,
    /// Bytes of the broker for each channel.
    pub(super) broker: f64,
}

/// Counters of everything.
struct Counters {
    at: Instant,
    look: Look,
    wal: f64,
    kept: f64,
    wire: f64,
    stored: f64,
    commits: f64,
}

impl<'a> Bench<'a> {
    pub(super) fn new(
        cluster: &'a Cluster,
        runtime: &'a Handle,
        window: Duration,
    ) -> io::Result<Self> {
        // What a start leaves to do.
        std::thread::sleep(SETTLE);
        let before = Look::at(cluster)?;
        std::thread::sleep(window);
        let after = Look::at(cluster)?;
        let idle = Part::ALL.map(|part| {
            let spent = after.spent(part, &before);
            (part, spent.as_secs_f64() / window.as_secs_f64())
        });
        Ok(Self {
            target: Target {
                listen: cluster.sse[0].address(),
                publish: cluster.chat[0].address(),
                dialect: hark_dialect(),
            },
            cluster,
            runtime,
            window,
            idle,
        })
    }

    /// So many streams of 100 channels, spread over so many nodes.
    pub(super) fn spread(&self, nodes: usize, streams: usize) -> io::Result<Flow> {
        let name = format!("{streams} streams on {nodes} broadcast-sse");
        let mut load = self.listened(nodes, streams / nodes, PUBLISHERS)?;
        self.flow(name, &mut load, Pace::PerSecond(RATE))
    }

    /// One stream of each channel on each node: what a node costs that has few listeners.
    pub(super) fn one_each(&self, nodes: usize) -> io::Result<Flow> {
        let name = format!("1 stream of each channel on each of {nodes} broadcast-sse");
        let mut load = self.listened(nodes, CHANNELS, PUBLISHERS)?;
        self.flow(name, &mut load, Pace::PerSecond(BRISK))
    }

    /// The same, with as many posts as are answered: what each part needs when it is busy.
    pub(super) fn one_each_busy(&self, nodes: usize) -> io::Result<Flow> {
        let name = format!(
            "1 stream of each channel on each of {nodes} broadcast-sse, {PUBLISHERS} senders as fast as they can"
        );
        let mut load = self.listened(nodes, CHANNELS, PUBLISHERS)?;
        self.flow(name, &mut load, Pace::ClosedLoop)
    }

    /// Few senders, each as fast as it can: what is delivered is what all parts together can do
    /// on the processors that they share.
    pub(super) fn saturated(&self, nodes: usize) -> io::Result<Flow> {
        let name = format!(
            "{SATURATING} streams on {nodes} broadcast-sse, {SENDERS} senders as fast as they can"
        );
        let mut load = self.listened(nodes, SATURATING / nodes, SENDERS)?;
        self.flow(name, &mut load, Pace::ClosedLoop)
    }

    fn listened(&self, nodes: usize, streams: usize, senders: usize) -> io::Result<Load<'_>> {
        let channels = channels(HEARD, CHANNELS);
        let mut load = Load::new(&self.target, channels, PAYLOAD)?;
        for node in &self.cluster.sse[..nodes] {
            load.listen_at(node.address());
            load.open_streams(streams, Begin::Live, Pace::ClosedLoop)?;
        }
        self.publishers(&mut load, self.cluster.chat.len(), senders)?;
        load.warm_up()?;
        Ok(load)
    }

    /// So many streams of 100 channels, and the posts, by way of nginx.
    pub(super) fn proxied(&self, streams: usize) -> io::Result<Flow> {
        let channels = channels(HEARD, CHANNELS);
        let mut load = Load::new(&self.target, channels, PAYLOAD)?;
        let front = self.cluster.front.address();
        load.listen_at(front);
        load.open_streams(streams, Begin::Live, Pace::ClosedLoop)?;
        load.publish_at(front);
        load.add_publishers(PUBLISHERS)?;
        load.warm_up()?;
        let name = format!("{streams} streams, and the posts, through nginx");
        self.flow(name, &mut load, Pace::PerSecond(RATE))
    }

    /// Posts to so many chat-service, each of which gets those of other channels, as many as are
    /// answered.
    pub(super) fn separate_posts(&self, nodes: usize) -> io::Result<Flow> {
        let mut load = Load::new(&self.target, channels(QUIET, CHANNELS), PAYLOAD)?;
        self.publishers(&mut load, nodes, PUBLISHERS)?;
        load.warm_up()?;
        load.separate(nodes);
        let name = format!(
            "{PUBLISHERS} senders, each as fast as it can, to {nodes} chat-service with channels of their own"
        );
        self.flow(name, &mut load, Pace::ClosedLoop)
    }

    /// Posts to so many chat-service without a listener; without a rate, as many as are answered.
    pub(super) fn posts(&self, nodes: usize, rate: Option<f64>) -> io::Result<Flow> {
        let channels = channels(QUIET, CHANNELS);
        let mut load = Load::new(&self.target, channels, PAYLOAD)?;
        self.publishers(&mut load, nodes, PUBLISHERS)?;
        load.warm_up()?;
        let (how, pace) = match rate {
            Some(rate) => (format!("{rate} posts a second"), Pace::PerSecond(rate)),
            None => (
                format!("{PUBLISHERS} senders, each as fast as it can"),
                Pace::ClosedLoop,
            ),
        };
        self.flow(format!("{how}, to {nodes} chat-service"), &mut load, pace)
    }

    /// Idle streams on this node.
    pub(super) fn memory(
        &self,
        name: &str,
        node: usize,
        streams: usize,
        channels: usize,
    ) -> io::Result<Memory> {
        let names = self::channels(IDLE + node as u32, channels);
        let mut load = Load::new(&self.target, names, PAYLOAD)?;
        load.listen_at(self.cluster.sse[node].address());
        let (before, slab) = (Look::at(self.cluster)?, slab_bytes()?);
        load.open_streams(streams, Begin::Live, Pace::ClosedLoop)?;
        load.idle(SETTLE)?;
        let after = Look::at(self.cluster)?;
        let more = |part| after.resident(part) as f64 - before.resident(part) as f64;
        Ok(Memory {
            name: name.to_owned(),
            streams,
            channels,
            sse: more(Part::Sse) / streams as f64,
            kernel: (slab_bytes()? - slab) / 2.0 / streams as f64,
            broker: more(Part::Broker) / channels as f64,
        })
    }

    fn publishers(&self, load: &mut Load<'_>, nodes: usize, count: usize) -> io::Result<()> {
        for node in &self.cluster.chat[..nodes] {
            load.publish_at(node.address());
            load.add_publishers(count / nodes)?;
        }
        Ok(())
    }

    fn flow(&self, name: String, load: &mut Load<'_>, pace: Pace) -> io::Result<Flow> {
        let (before, received) = (self.count()?, load.received());
        load.publish_for(pace, self.window)?;
        let measured = load.finish(pace)?;
        let (after, received) = (self.count()?, load.received() - received);
        let window = measured.window.as_secs_f64();
        let posts = measured.posted.max(1) as f64;
        let listened = measured.delivered > 0;
        let events = measured.delivered.max(1) as f64;
        let took = after.at.duration_since(before.at).as_secs_f64();
        let spent = |part| {
            let spent = after.look.spent(part, &before.look).as_secs_f64();
            let idle = self.idle.iter().find(|(of, _)| *of == part);
            let idle = idle.map_or(0.0, |(_, idle)| idle * took);
            (spent - idle).max(0.0) * 1e6
        };
        let milliseconds = |histogram: &crate::histogram::Histogram| {
            [0.5, 0.99].map(|part| histogram.quantile(part).unwrap_or_default())
        };
        Ok(Flow {
            name,
            posts: measured.posted as f64 / window,
            events: measured.in_window as f64 / window,
            answered: milliseconds(&measured.post),
            delivered: listened.then(|| milliseconds(&measured.latency)),
            each_post: [Part::Chat, Part::Store, Part::Broker].map(|part| spent(part) / posts),
            each_event: listened.then(|| spent(Part::Sse) / events),
            front: spent(Part::Front) / (posts + measured.delivered as f64),
            batch: (after.stored - before.stored) / (after.commits - before.commits).max(1.0),
            wal_bytes: (after.wal - before.wal) / posts,
            kept_bytes: (after.kept - before.kept) / posts,
            wire_bytes: (after.wire - before.wire) / posts,
            event_bytes: listened.then(|| received as f64 / events),
            faults: measured.faults,
            refused: measured.refused,
            generator: measured.own.working + measured.own.waiting,
        })
    }

    fn count(&self) -> io::Result<Counters> {
        let ask = |sql| {
            let answer = self.runtime.block_on(self.cluster.store.run("hark", sql));
            answer.parse().map_err(io::Error::other)
        };
        let sum = |metric| {
            let nodes = self.cluster.chat.iter();
            nodes
                .map(|node| Ok(metrics::read(node.operations(), metric)?.unwrap_or_default()))
                .sum::<io::Result<f64>>()
        };
        Ok(Counters {
            wal: ask("SELECT wal_bytes FROM pg_stat_wal")?,
            kept: ask("SELECT pg_database_size('hark')")?,
            wire: loopback_bytes()?,
            stored: sum("hark_chat_store_stored_total")?,
            commits: sum("hark_chat_store_commits_total")?,
            look: Look::at(self.cluster)?,
            at: Instant::now(),
        })
    }
}

fn channels(set: u32, count: usize) -> Vec<String> {
    (0..count)
        .map(|channel| format!("5ca1e000-0000-4000-8000-{set:06x}{channel:06x}"))
        .collect()
}

/// What the loopback device has carried: its first counter (proc_pid_net(5)).
fn loopback_bytes() -> io::Result<f64> {
    let devices = fs::read_to_string("/proc/net/dev")?;
    let lo = devices
        .lines()
        .find_map(|line| line.trim().strip_prefix("lo:"));
    let bytes = lo.and_then(|line| line.split_whitespace().next());
    let bytes = bytes.and_then(|bytes| bytes.parse().ok());
    bytes.ok_or_else(|| io::Error::other("/proc/net/dev: there is no loopback device"))
}

/// Memory that the kernel uses for its own objects, sockets among them (proc_meminfo(5)).
fn slab_bytes() -> io::Result<f64> {
    let memory = fs::read_to_string("/proc/meminfo")?;
    let slab = memory.lines().find_map(|line| line.strip_prefix("Slab:"));
    let kilobytes = slab.and_then(|slab| slab.trim().strip_suffix(" kB"));
    let kilobytes = kilobytes.and_then(|kilobytes| kilobytes.parse::<f64>().ok());
    let kilobytes = kilobytes.ok_or_else(|| io::Error::other("/proc/meminfo: there is no Slab"))?;
    Ok(kilobytes * 1024.0)
}
