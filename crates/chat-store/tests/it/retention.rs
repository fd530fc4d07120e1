//! What expires, when, and by which clock.

use std::time::{Duration, Instant};

use chat_store::{Log, Outbox, SqliteStore, Store};
use clock::{Clock, Timestamp};

use crate::posts::{channel, post, text};
use crate::support::Folder;

const DAY: Duration = Duration::from_secs(24 * 3600);

async fn first(store: &SqliteStore) -> u64 {
    store.heads(&[channel(1)]).await.unwrap()[0].first
}

/// Asks the writer again and again, which also gives it occasion for its chores.
async fn until(store: &SqliteStore, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "never happened"
        );
        store.check().await.unwrap();
    }
}

#[tokio::test]
async fn events_expire_by_age() {
    let folder = Folder::new();
    let store = folder.open();
    for day in 0..40 {
        post(&store, text(1, day.to_string())).await.unwrap();
        folder.clock.advance(DAY);
    }
    // Some may have expired by themselves in the meantime.
    store.expire().await.unwrap();
    // Those of the last 30 days, and the one that is 30 days old is gone.
    assert_eq!(first(&store).await, 12);
    assert_eq!(store.stats().expired, 11);
    store.close().await;
}

#[tokio::test]
async fn jump_of_the_clock_expires_nothing() {
    let folder = Folder::new();
    let store = folder.open();
    post(&store, text(1, "one")).await.unwrap();
    let years = |count: i64| {
        let now = folder.clock.now().as_millis();
        folder
            .clock
            .set(Timestamp::from_millis(now + count * 365 * 24 * 3600 * 1000));
    };
    years(10);
    assert_eq!(store.expire().await.unwrap(), 0);
    store.close().await;
    // Down for ten more years, as far as anyone can tell: a day of it counts.
    for start in 1..=29 {
        years(10);
        let store = folder.open();
        assert_eq!(store.expire().await.unwrap(), 0, "start {start}");
        store.close().await;
    }
    years(10);
    let store = folder.open();
    assert_eq!(store.expire().await.unwrap(), 1);
    store.close().await;
}

#[tokio::test]
async fn clock_that_goes_back_does_not_stop_retention() {
    let folder = Folder::new();
    let store = folder.open();
    post(&store, text(1, "one")).await.unwrap();
    folder.clock.set(Timestamp::from_millis(0));
    folder.clock.advance(20 * DAY);
    store.close().await;
    folder.clock.set(Timestamp::from_millis(0));
    let store = folder.open();
    assert_eq!(store.expire().await.unwrap(), 0);
    folder.clock.advance(10 * DAY);
    assert_eq!(store.expire().await.unwrap(), 1);
    store.close().await;
}

#[tokio::test]
async fn busy_channel_is_trimmed_by_itself() {
    let folder = Folder::new();
    let mut options = folder.options();
    options.retention.max_per_channel = 10;
    let store = SqliteStore::open(&options).unwrap();
    for number in 0..100 {
        post(&store, text(1, number.to_string())).await.unwrap();
    }
    post(&store, text(2, "quiet")).await.unwrap();
    until(&store, || store.stats().expired >= 89).await;
    assert!(first(&store).await >= 90);
    assert_eq!(store.heads(&[channel(2)]).await.unwrap()[0].first, 1);
    assert_eq!(post(&store, text(1, "on")).await.unwrap(), 101);
    store.close().await;
}

#[tokio::test]
async fn lowered_limits_reach_quiet_channels_after_a_restart() {
    let folder = Folder::new();
    let store = folder.open();
    for number in 0..1_000 {
        post(&store, text(number % 50, "x")).await.unwrap();
    }
    store.close().await;
    let mut options = folder.options();
    options.retention.max_per_channel = 5;
    let store = SqliteStore::open(&options).unwrap();
    until(&store, || store.stats().expired == 750).await;
    store.close().await;
}

#[tokio::test]
async fn oldest_events_go_when_the_store_is_too_large_and_the_file_shrinks() {
    let folder = Folder::new();
    let mut options = folder.options();
    options.retention.max_bytes = 4 << 20;
    let store = SqliteStore::open(&options).unwrap();
    let words = "x".repeat(50_000);
    for number in 0..400 {
        post(&store, text(number % 2, words.clone())).await.unwrap();
    }
    let removed = store.expire().await.unwrap() + store.stats().expired;
    assert!(removed >= 300);
    for head in store.heads(&[channel(0), channel(1)]).await.unwrap() {
        assert_eq!(head.head, 200);
        assert!((150..=200).contains(&head.first), "{}", head.first);
    }
    store.close().await;
    let size = std::fs::metadata(folder.dir.path().join("store.sqlite3"))
        .unwrap()
        .len();
    // 4 MiB, a tenth of that and 1,024 pages stay for what comes next.
    assert!(size < 10 << 20, "{size}");
}

fn count(folder: &Folder, table: &str) -> u64 {
    let database = rusqlite::Connection::open(folder.dir.path().join("store.sqlite3")).unwrap();
    let sql = format!("SELECT count(*) FROM {table}");
    database.query_row(&sql, [], |row| row.get(0)).unwrap()
}

/// Posts one message to each of so many channels, starting at this one.
async fn post_to_many(store: &SqliteStore, from: u128, channels: u128) {
    for start in (from..from + channels).step_by(500) {
        let end = (start + 500).min(from + channels);
        let posts = (start..end).map(|number| post(store, text(number, "x")));
        for posted in futures_util::future::join_all(posts).await {
            posted.unwrap();
        }
    }
}

#[tokio::test]
async fn channels_take_nothing_of_what_events_may_have() {
    let folder = Folder::new();
    let mut options = folder.options();
    options.retention.max_bytes = 256 << 10;
    let store = SqliteStore::open(&options).unwrap();
    post_to_many(&store, 1_000, 6_000).await;
    store.expire().await.unwrap();
    let stats = store.stats();
    // Each has about 250 bytes, and 64 are counted besides.
    let kept = 6_000 - stats.expired;
    assert!((700..1_100).contains(&kept), "{kept} are left");
    assert_eq!(stats.expired_early, stats.expired);
    post(&store, text(1, "one")).await.unwrap();
    store.expire().await.unwrap();
    assert_eq!(first(&store).await, 1);
    store.close().await;
    // Whoever opens it next knows how large it is.
    let store = SqliteStore::open(&options).unwrap();
    assert!(store.expire().await.unwrap() <= 1);
    store.close().await;
}

#[tokio::test]
async fn forgotten_channels_leave_nothing_behind() {
    let folder = Folder::new();
    let store = folder.open();
    post_to_many(&store, 1_000, 1_000).await;
    folder.clock.advance(30 * DAY);
    post(&store, text(1, "one")).await.unwrap();
    store.expire().await.unwrap();
    assert_eq!(count(&folder, "channels"), 1_001);
    folder.clock.advance(29 * DAY);
    assert_eq!(store.expire().await.unwrap(), 0);
    assert_eq!(count(&folder, "channels"), 1_001);
    folder.clock.advance(DAY);
    store.expire().await.unwrap();
    assert_eq!(store.stats().channels_forgotten, 1_000);
    for (table, rows) in [("channels", 1), ("epochs", 1), ("empty_channels", 1)] {
        assert_eq!(count(&folder, table), rows, "{table}");
    }
    store.close().await;
}

#[tokio::test]
async fn newest_event_stays_whatever_its_size() {
    let folder = Folder::new();
    let mut options = folder.options();
    options.retention.max_bytes_per_channel = 1;
    let store = SqliteStore::open(&options).unwrap();
    for number in 1..=10 {
        post(&store, text(1, number.to_string())).await.unwrap();
    }
    store.expire().await.unwrap();
    assert_eq!(first(&store).await, 10);
    assert_eq!(post(&store, text(1, "on")).await.unwrap(), 11);
    store.close().await;
}

#[tokio::test]
async fn watermark_is_saved_without_another_post() {
    let folder = Folder::new();
    let store = folder.open();
    post(&store, text(1, "one")).await.unwrap();
    store.mark_published(chat_store::Position::new(0, 1));
    let path = folder.dir.path().join("store.sqlite3");
    let database = rusqlite::Connection::open(path).unwrap();
    let saved = || -> i64 {
        database
            .query_row("SELECT published_to FROM state", [], |row| row.get(0))
            .unwrap()
    };
    until(&store, || saved() == 1).await;
    store.close().await;
}
