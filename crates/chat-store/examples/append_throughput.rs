//! How many messages a second a store takes: `cargo run --release -p chat-store --example
//! append_throughput -- [PLACE [STORES [CALLERS [CHANNELS [SECONDS]]]]]`.
//!
//! `PLACE` is a folder on the disk that will be used, as each commit waits for it; or a PostgreSQL
//! database that may be filled, such as `postgres://postgres@127.0.0.1/bench`, which several stores
//! may use. Every store has its own writer, as every chat-service has; the callers are shared among
//! them, and each posts its next message when the last one is stored, as an HTTP connection does.
//! All stores run in this process, so they take a part of the machine that would be the services'.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use chat_model::NewMessage;
use chat_store::{
    Append, OpenError, Owner, PostgresOptions, PostgresStore, SqliteOptions, SqliteStore, Store,
};
use clock::SystemClock;
use uuid::Uuid;

/// About 300 bytes once encoded.
const TEXT_BYTES: usize = 100;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let place = arguments.next().unwrap_or_else(|| {
        let name = format!("hark-throughput-{}", std::process::id());
        std::env::temp_dir().join(name).display().to_string()
    });
    let mut number = |default: u64| arguments.next().map_or(Ok(default), |text| text.parse());
    let count = number(1)?;
    let (callers, channels, seconds) = (number(256)?, number(100)?, number(10)?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut stores = Vec::new();
        for _ in 0..count {
            stores.push(open(&place).await?);
        }
        measure(stores, callers, channels, seconds).await;
        Ok::<_, OpenError>(())
    })?;
    println!("left behind: {place}");
    Ok(())
}

async fn open(place: &str) -> Result<Arc<dyn Store>, OpenError> {
    let clock = SystemClock::shared();
    Ok(if place.starts_with("postgres") {
        Arc::new(PostgresStore::open(&PostgresOptions::new(place, clock)).await?)
    } else {
        Arc::new(SqliteStore::open(&SqliteOptions::new(place, clock))?)
    })
}

async fn measure(stores: Vec<Arc<dyn Store>>, callers: u64, channels: u64, seconds: u64) {
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
                    owner: Owner::default(),
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
    println!("{callers} callers, {channels} channels:");
    for store in &stores {
        let stats = store.stats();
        println!(
            "{:.0} messages/s, {:.0} commits/s, {:.1} messages a commit, commit mean {:.2} ms, \
             longest {:.1} ms, database {} MiB, log {} MiB, {} checkpoints blocked",
            stats.stored as f64 / took,
            stats.commits as f64 / took,
            stats.stored as f64 / stats.commits.max(1) as f64,
            stats.commit_time.as_secs_f64() * 1e3 / stats.commits.max(1) as f64,
            stats.longest_commit.as_secs_f64() * 1e3,
            stats.database_bytes >> 20,
            stats.wal_bytes >> 20,
            stats.checkpoints_blocked,
        );
    }
    let stored: u64 = stores.iter().map(|store| store.stats().stored).sum();
    println!(
        "{:.0} messages/s in all, slowest post {:.1} ms",
        stored as f64 / took,
        slowest.load(Relaxed) as f64 / 1e3,
    );
    for store in stores {
        store.close().await;
    }
}
