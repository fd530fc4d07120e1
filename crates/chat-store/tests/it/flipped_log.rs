//! A write-ahead log that a process left when it was killed, in which a disk has changed something.

use std::fs::{copy, metadata, read, write};
use std::path::Path;

use chat_model::Head;
use chat_store::{Log, OpenError, SqliteOptions, SqliteStore, Store};

use crate::posts::{channel, post, text};
use crate::support::Folder;

const FILE: &str = "store.sqlite3";
const LOG: &str = "store.sqlite3-wal";
const KEPT: &str = "store.sqlite3-wal.damaged-1";
/// A frame of the log: its header and a page.
const FRAME: usize = 24 + 4096;

/// A folder as a process leaves it that is killed: much is in the log, some of which is in the
/// database as well.
async fn killed(folder: &Folder) -> (tempfile::TempDir, Head) {
    let store = folder.open();
    for number in 0..60 {
        post(&store, text(number % 7, "x".repeat(500)))
            .await
            .unwrap();
    }
    store.close().await;
    let store = folder.open();
    for number in 0..120 {
        post(&store, text(number % 7, "y".repeat(500)))
            .await
            .unwrap();
    }
    let other = rusqlite::Connection::open(folder.dir.path().join(FILE)).unwrap();
    let passive = "PRAGMA wal_checkpoint(PASSIVE)";
    other.query_row(passive, [], |_| Ok(())).unwrap();
    let head = store.heads(&[channel(1)]).await.unwrap().remove(0);
    let left = tempfile::tempdir().unwrap();
    for name in [FILE, LOG] {
        copy(folder.dir.path().join(name), left.path().join(name)).unwrap();
    }
    store.close().await;
    (left, head)
}

fn flip(dir: &Path, at: usize) {
    let mut bytes = read(dir.join(LOG)).unwrap();
    bytes[at] ^= 4;
    write(dir.join(LOG), bytes).unwrap();
}

fn open(folder: &Folder, dir: &Path) -> Result<SqliteStore, OpenError> {
    SqliteStore::open(&SqliteOptions::new(dir, folder.clock.shared()))
}

#[tokio::test]
async fn a_log_with_a_flipped_bit_is_kept_and_what_it_held_is_missed() {
    for at in [16, 32 + 3 * FRAME + 10, 32 + 20 * FRAME + 1_000] {
        let folder = Folder::new();
        let (left, before) = killed(&folder).await;
        flip(left.path(), at);
        let damaged = read(left.path().join(LOG)).unwrap();
        match open(&folder, left.path()) {
            Ok(store) => {
                let head = store.heads(&[channel(1)]).await.unwrap().remove(0);
                assert!(head.epoch > before.epoch, "numbers will be used again");
                store.close().await;
                assert!(read(left.path().join(KEPT)).unwrap() == damaged, "at {at}");
                // Once is enough.
                let store = open(&folder, left.path()).unwrap();
                let again = store.heads(&[channel(1)]).await.unwrap().remove(0);
                assert_eq!(again.epoch, head.epoch);
                store.close().await;
            }
            Err(error) => {
                let is_left = |name| read(left.path().join(name)).is_ok_and(|log| log == damaged);
                assert!(is_left(LOG) || is_left(KEPT), "at {at}: {error}");
                assert!(error.to_string().contains(KEPT), "{error}");
                assert!(error.to_string().contains("hark restore"), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn a_database_that_cannot_be_opened_keeps_its_log() {
    let folder = Folder::new();
    let (left, _) = killed(&folder).await;
    // The log has the first page as well.
    flip(left.path(), 16);
    let log = read(left.path().join(LOG)).unwrap();
    let mut bytes = read(left.path().join(FILE)).unwrap();
    bytes[100..200].fill(0xee);
    write(left.path().join(FILE), bytes).unwrap();
    for _ in 0..2 {
        let refused = open(&folder, left.path()).unwrap_err();
        assert!(refused.to_string().contains("hark restore"), "{refused}");
        assert!(read(left.path().join(LOG)).unwrap_or_default() == log);
    }
}

#[tokio::test]
async fn a_sound_log_leaves_no_copy() {
    let folder = Folder::new();
    let (left, before) = killed(&folder).await;
    assert!(metadata(left.path().join(LOG)).unwrap().len() > 0);
    let store = open(&folder, left.path()).unwrap();
    let head = store.heads(&[channel(1)]).await.unwrap().remove(0);
    assert_eq!((head.epoch, head.head), (before.epoch, before.head));
    assert_eq!(store.damage(), None);
    store.close().await;
    assert!(!left.path().join(KEPT).exists());
}
