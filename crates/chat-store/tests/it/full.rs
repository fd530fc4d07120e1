//! The disk is full, or fails, and comes back: without a restart.

use std::{process::Command, time::Duration};

use chat_store::{Appended, SqliteOptions, SqliteStore, Store, StoreError};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use service_kit::clock::SystemClock;

use crate::posts::{channel, post, text};
use crate::support::Folder;

#[tokio::test]
async fn full_store_refuses_posts_serves_reads_and_recovers() {
    let folder = Folder::new();
    let mut options = folder.options();
    options.max_file_bytes = Some(1 << 20);
    let store = SqliteStore::open(&options).unwrap();
    store.check().await.unwrap();
    let words = "x".repeat(20_000);
    let mut stored = 0;
    let error = loop {
        match post(&store, text(1, words.clone())).await {
            Ok(seq) => stored = seq,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    assert!(stored > 10);
    assert!(store.check().await.is_err(), "not ready");
    assert!(store.check().await.is_err(), "and stays so");
    let head = &store.heads(&[channel(1)]).await.unwrap()[0];
    assert_eq!(head.head, stored, "reads go on, nothing was half stored");
    // Everything expires, and there is room again.
    folder.clock.advance(Duration::from_secs(31 * 24 * 3600));
    assert_eq!(store.expire().await.unwrap(), stored);
    store.check().await.unwrap();
    assert_eq!(post(&store, text(1, words)).await.unwrap(), stored + 1);
    assert!(store.stats().failed > 0);
    store.close().await;
}

/// A repeat is answered from what is there: it shows nothing about the disk.
#[tokio::test]
async fn repeats_do_not_pass_for_room() {
    let folder = Folder::new();
    let mut options = folder.options();
    options.max_file_bytes = Some(1 << 20);
    let store = SqliteStore::open(&options).unwrap();
    let mut known = text(1, "known");
    known.message.id = Some(uuid::Uuid::from_u128(1));
    store.append(known.clone()).await.unwrap();
    while post(&store, text(1, "x".repeat(20_000))).await.is_ok() {}
    store.check().await.expect_err("full");
    let repeat = store.append(known).await.unwrap();
    assert!(matches!(repeat, Appended::Repeated { .. }));
    store.check().await.expect_err("still full");
    store.close().await;
}

#[tokio::test]
async fn writer_that_finds_the_database_locked_recovers() {
    let folder = Folder::new();
    let store = folder.open();
    post(&store, text(1, "one")).await.unwrap();
    let path = folder.dir.path().join("store.sqlite3");
    let intruder = rusqlite::Connection::open(path).unwrap();
    intruder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = post(&store, text(1, "two")).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    assert_eq!(store.heads(&[channel(1)]).await.unwrap()[0].head, 1);
    intruder.execute_batch("ROLLBACK").unwrap();
    assert_eq!(post(&store, text(1, "two")).await.unwrap(), 2);
    store.check().await.unwrap();
    store.close().await;
}

/// A limit on the size of files makes writes fail as a broken disk does, in this process only.
#[tokio::test]
async fn input_output_error_leaves_the_outcome_open_and_passes() {
    let folder = Folder::new();
    // A write beyond the limit sends a signal that ends the process unless it is ignored, and
    // only a shell can ignore it for a program without unsafe code.
    let child = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "full::child_meets_a_broken_disk"])
        .args(["--ignored", "--nocapture"])
        .env("HARK_TEST_STORE_DIR", folder.dir.path())
        .output()
        .unwrap();
    assert!(
        child.status.success(),
        "{}{}",
        String::from_utf8_lossy(&child.stdout),
        String::from_utf8_lossy(&child.stderr)
    );
    assert!(String::from_utf8_lossy(&child.stdout).contains("1 passed"));
}

#[tokio::test]
#[ignore = "the child process of input_output_error_leaves_the_outcome_open_and_passes"]
async fn child_meets_a_broken_disk() {
    let dir = std::env::var("HARK_TEST_STORE_DIR").expect("the parent names the folder");
    let options = SqliteOptions::new(&dir, SystemClock::shared());
    let store = SqliteStore::open(&options).unwrap();
    let words = "x".repeat(20_000);
    let healthy = post(&store, text(1, words.clone())).await.unwrap();
    let mut commits = store.follow(100);
    let limit = getrlimit(Resource::Fsize);
    let set = |bytes| {
        let limit = Rlimit {
            current: bytes,
            maximum: limit.maximum,
        };
        setrlimit(Resource::Fsize, limit).unwrap();
    };
    set(Some(store.stats().wal_bytes));
    let error = post(&store, text(1, words.clone())).await.unwrap_err();
    assert!(
        matches!(error, StoreError::OutcomeUnknown { .. }),
        "{error}"
    );
    assert!(store.check().await.is_err());
    assert!(commits.recv().await.is_none(), "the follower has to read");
    let head = store.heads(&[channel(1)]).await.unwrap()[0].head;
    assert!((healthy..=healthy + 1).contains(&head));
    set(limit.current);
    store.check().await.unwrap();
    let head = store.heads(&[channel(1)]).await.unwrap()[0].head;
    assert_eq!(post(&store, text(1, words)).await.unwrap(), head + 1);
    store.close().await;
    let store = SqliteStore::open(&options).unwrap();
    assert_eq!(store.heads(&[channel(1)]).await.unwrap()[0].head, head + 1);
    store.close().await;
}
