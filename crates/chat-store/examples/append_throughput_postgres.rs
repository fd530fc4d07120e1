//! How many messages a second the PostgreSQL store takes: `cargo run --release -p chat-store
//! --example append_throughput_postgres -- URL [STORES [CALLERS [CHANNELS [SECONDS]]]]`.
//!
//! `URL` names a database that may be filled, such as `postgres://postgres@127.0.0.1/bench`. Every
//! store has its own writer, as every chat-service has; the callers are shared among them, and each
//! posts its next message when the last one is stored. All stores run in this process, so it takes
//! a part of the machine that would be the services'.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use chat_model::NewMessage;
use chat_store::{Append, PostgresOptions, PostgresStore, Store, StoreError};
use service_kit::clock::SystemClock;
use uuid::Uuid;

/// About 300 bytes once encoded.
const TEXT_BYTES: usize = 100;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().ok_or("the URL of a database is missing")?;
    let mut number = |default: u64| arguments.next().map_or(Ok(default), |text| text.parse());
    let (stores, callers, channels, seconds) =
        (number(1)?, number(256)?, number(100)?, number(10)?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(measure(&url, stores, callers, channels, seconds))?;
    Ok(())
}

async fn measure(
    url: &str,
    count: u64,
    callers: u64,
    channels: u64,
    seconds: u64,
) -> Result<(), StoreError> {
    let mut stores = Vec::new();
    for _ in 0..count {
        let options = PostgresOptions::new(url, SystemClock::shared());
        stores.push(Arc::new(PostgresStore::open(&options).await?));
    }
    let end = Instant::now() + Duration::from_secs(seconds);
    let slowest = Arc::new(AtomicU64::new(0));
    let tasks = tokio::task::LocalSet::new();
    let started = Instant::now();
    for (caller, store) in (0..callers).zip(stores.iter().cycle()) {
        let (store, slowest) = (store.clone(), slowest.clone());
        tasks.spawn_local(async move {
            for number in caller.. {
                if Instant::now() > end {
                    break;
                }
                let asked = Instant::now();
                let append = Append {
                    channel: Uuid::from_u128((number % channels).into()).into(),
                    message: NewMessage::text("x".repeat(TEXT_BYTES)),
                    key: None,
                    max_event_bytes: 64 * 1024,
                };
                if let Err(error) = store.append(append).await {
                    eprintln!("{error}");
                    break;
                }
                let micros = u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX);
                slowest.fetch_max(micros, Relaxed);
            }
        });
    }
    tasks.await;
    let took = started.elapsed().as_secs_f64();
    let (mut stored, mut commits, mut commit_time) = (0, 0, Duration::ZERO);
    for store in &stores {
        let stats = store.stats();
        stored += stats.stored;
        commits += stats.commits;
        commit_time += stats.commit_time;
    }
    println!(
        "{count} stores, {callers} callers, {channels} channels: {:.0} messages/s, {:.0} commits/s, \
         {:.1} messages a commit, commit mean {:.2} ms, slowest post {:.1} ms",
        stored as f64 / took,
        commits as f64 / took,
        stored as f64 / commits.max(1) as f64,
        commit_time.as_secs_f64() * 1e3 / commits.max(1) as f64,
        slowest.load(Relaxed) as f64 / 1e3,
    );
    for store in stores {
        store.close().await;
    }
    Ok(())
}
