//! How many messages a second the store takes: `cargo run --release -p chat-store --example
//! append_throughput -- [DIR [CALLERS [CHANNELS [SECONDS]]]]`.
//!
//! Every caller posts its next message when the last one is stored, as an HTTP connection does.
//! The folder should be on the disk that will be used: each commit waits for it.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use chat_model::NewMessage;
use chat_store::{Append, SqliteOptions, SqliteStore, Store, StoreError};
use service_kit::clock::SystemClock;
use uuid::Uuid;

/// About 300 bytes once encoded.
const TEXT_BYTES: usize = 100;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().map_or_else(
        || std::env::temp_dir().join(format!("hark-throughput-{}", std::process::id())),
        PathBuf::from,
    );
    let mut number = |default: u64| arguments.next().map_or(Ok(default), |text| text.parse());
    let (callers, channels, seconds) = (number(256)?, number(100)?, number(10)?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    runtime.block_on(measure(&dir, callers, channels, seconds))?;
    println!("left behind: {}", dir.display());
    Ok(())
}

async fn measure(
    dir: &std::path::Path,
    callers: u64,
    channels: u64,
    seconds: u64,
) -> Result<(), StoreError> {
    let store = Arc::new(SqliteStore::open(&SqliteOptions::new(
        dir,
        SystemClock::shared(),
    ))?);
    let end = Instant::now() + Duration::from_secs(seconds);
    let slowest = Arc::new(AtomicU64::new(0));
    let tasks = tokio::task::LocalSet::new();
    let started = Instant::now();
    for caller in 0..callers {
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
    let took = started.elapsed();
    let stats = store.stats();
    println!(
        "{callers} callers, {channels} channels: {:.0} messages/s, {:.0} commits/s, {:.1} messages a commit, \
         commit mean {:.2} ms, longest {:.1} ms, slowest post {:.1} ms, database {} MiB, log {} MiB, \
         {} checkpoints blocked",
        stats.stored as f64 / took.as_secs_f64(),
        stats.commits as f64 / took.as_secs_f64(),
        stats.stored as f64 / stats.commits.max(1) as f64,
        stats.commit_time.as_secs_f64() * 1e3 / stats.commits.max(1) as f64,
        stats.longest_commit.as_secs_f64() * 1e3,
        slowest.load(Relaxed) as f64 / 1e3,
        stats.database_bytes >> 20,
        stats.wal_bytes >> 20,
        stats.checkpoints_blocked,
    );
    store.close().await;
    Ok(())
}
