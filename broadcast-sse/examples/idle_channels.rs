//! Prints the memory that an idle channel costs: `cargo run --release -p broadcast-sse --example
//! idle_channels`. These are channels of the hub, with a log but without events in memory. The cost of
//! the stream itself is not counted.

use std::error::Error;
use std::fs;

use broadcast_sse::Config;
use broadcast_sse::bench_support::IdleChannels;
use chat_mqtt::{Subscriber, SubscriptionMode};
use service_kit::lifecycle::Lifecycle;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CHANNELS: u32 = 200_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let modes = [
        ("wildcard", SubscriptionMode::Wildcard),
        (
            "per-channel",
            SubscriptionMode::PerChannel { connections: 2 },
        ),
    ];
    println!("bytes for each of {CHANNELS} channels");
    for (name, mode) in modes {
        let listened = cost(mode, true)?;
        let lingering = cost(mode, false)?;
        println!("{name:>12}: {listened:.0} with a listener, {lingering:.0} lingering without");
    }
    Ok(())
}

fn cost(mode: SubscriptionMode, listened: bool) -> Result<f64, Box<dyn Error>> {
    let life = Lifecycle::new();
    // Nothing listens on the discard port; the list of watched channels is kept anyway.
    let broker = ("HARK_MQTT__URL".to_owned(), "mqtt://127.0.0.1:9".to_owned());
    let config = Config::load(None, [broker])?;
    let (subscriber, _deliveries) = Subscriber::start(&config.mqtt, mode, &life);
    let mut channels = IdleChannels::new(subscriber);
    let before = resident()?;
    channels.add(CHANNELS, listened);
    let cost = (resident()? - before) / f64::from(CHANNELS);
    // Never freed, so that the next measurement needs new memory.
    std::mem::forget(channels);
    life.shutdown();
    Ok(cost)
}

/// Resident memory of this process, in bytes.
fn resident() -> Result<f64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 = line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .ok_or("no VmRSS in /proc/self/status")?
        .parse()?;
    Ok(kib * 1024.0)
}
