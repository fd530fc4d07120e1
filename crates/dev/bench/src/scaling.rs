//! What a post, an event, a stream and a channel cost each part of a Hark of many nodes.
//!
//! On a machine with few processors, which all parts share, more nodes bring no more throughput. What
//! more nodes would bring elsewhere follows from the processor time that each part needs for one
//! post and one event, and from whether that stays the same when there are more of them.

mod loads;
mod parts;
mod tables;

use std::io;
use std::time::Duration;

use system_tests::{Cluster, Size};

use crate::machine::{self, Machine};
use loads::Bench;

/// Nodes that loads are spread over.
const CHAT: usize = 2;
const SSE: usize = 3;

/// Starts a cluster, puts one load after the other on it, and prints tables.
///
/// # Errors
/// When the load cannot be put on it; the text says why.
///
/// # Panics
/// When the cluster does not start; the text names the package that is missing.
pub(crate) fn run(window: Duration, streams: usize) -> io::Result<()> {
    // It reads what the programs print, while this thread is the load generator.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let size = Size {
        chat: CHAT,
        // Two more have no streams before their memory is looked at.
        sse: SSE + 2,
        broker_nodes: 3,
        ..Size::default()
    };
    let cluster = runtime.block_on(Cluster::start(size));
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let machine = Machine::read(processors)?;
    println!(
        "{} processors of {}, {}; fsync {:.2} ms; commit {}; {} s each\n",
        machine.processors,
        machine.processor,
        machine.kernel,
        machine::fsync()?,
        machine::commit(),
        window.as_secs(),
    );
    let bench = Bench::new(&cluster, runtime.handle(), window)?;
    println!("{}", tables::idle(&bench.idle));
    let mut posts = Vec::new();
    for rate in [100.0, 500.0, 1_500.0] {
        posts.push(bench.posts(1, Some(rate))?);
    }
    for nodes in 1..=CHAT {
        posts.push(bench.posts(nodes, None)?);
    }
    posts.push(bench.separate_posts(CHAT)?);
    println!("{}", tables::flows("Posts, and nobody listens", &posts));
    let mut flows = Vec::new();
    for nodes in 1..=SSE {
        flows.push(bench.spread(nodes, streams)?);
    }
    for nodes in 1..=SSE {
        flows.push(bench.one_each(nodes)?);
    }
    for nodes in [1, SSE] {
        flows.push(bench.one_each_busy(nodes)?);
    }
    flows.push(bench.proxied(streams)?);
    for nodes in 1..=SSE {
        flows.push(bench.saturated(nodes)?);
    }
    println!(
        "{}",
        tables::flows("Listeners, spread over the nodes", &flows)
    );
    let memory = [
        bench.memory("one channel", SSE, streams, 1)?,
        bench.memory("a channel each", SSE + 1, streams / 2, streams / 2)?,
    ];
    println!("{}", tables::memory(&memory));
    Ok(())
}
