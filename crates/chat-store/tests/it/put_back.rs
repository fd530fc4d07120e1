//! A folder that lacks what it had, and nobody said so.

use std::fs::{copy, metadata, remove_file, write};
use std::path::Path;
use std::time::Duration;

use chat_model::Position;
use chat_store::{Log, OpenError, SqliteOptions, SqliteStore, Store, new_epoch};
use test_kit::{ensure, eventually};

use crate::posts::{channel, post, text};
use crate::support::Folder;

const FILE: &str = "store.sqlite3";
const LOG: &str = "store.sqlite3-wal";

/// Posts so many, closes, and says where the log stands.
async fn post_and_close(folder: &Folder, count: u64) -> Position {
    let store = folder.open();
    for _ in 0..count {
        post(&store, text(1, "words")).await.unwrap();
    }
    let head = store.heads(&[channel(1)]).await.unwrap().remove(0);
    store.close().await;
    head.position()
}

#[tokio::test]
async fn an_older_database_beside_its_mark_gets_a_new_epoch() {
    let folder = Folder::new();
    let file = folder.dir.path().join(FILE);
    let older = folder.dir.path().join("older");
    post_and_close(&folder, 5).await;
    copy(&file, &older).unwrap();
    let lost = post_and_close(&folder, 1).await;
    assert_eq!(lost.seq, 6);
    copy(&older, &file).unwrap();

    let store = folder.open();
    let head = store.heads(&[channel(1)]).await.unwrap().remove(0);
    assert_eq!(head.head, 5);
    assert!(head.epoch > lost.epoch, "its number will be used again");
    let kept = head
        .cut(lost)
        .expect("listeners are told what is gone")
        .kept;
    assert_eq!(kept.seq, 5);
    assert_eq!(post(&store, text(1, "new")).await.unwrap(), 6);
    store.close().await;
    // Once is enough.
    assert_eq!(post_and_close(&folder, 0).await.epoch, head.epoch);
}

#[tokio::test]
async fn a_database_that_is_gone_or_empty_is_not_begun_anew_in_silence() {
    let folder = Folder::new();
    let file = folder.dir.path().join(FILE);
    post_and_close(&folder, 3).await;
    for lose in [|file| remove_file(file), |file| write(file, "")] {
        lose(&file).unwrap();
        let refused = SqliteStore::open(&folder.options()).unwrap_err();
        assert!(matches!(refused, OpenError::Unusable { .. }), "{refused}");
        assert!(refused.to_string().contains("hark restore"), "{refused}");
    }
    remove_file(folder.dir.path().join("store.mark")).unwrap();
    assert_eq!(post_and_close(&folder, 1).await.seq, 1);
}

/// A folder as a process leaves it that is killed, some time after it has posted so many: with a
/// write-ahead log, and a mark that knows it.
async fn killed(folder: &Folder, count: u64) -> (tempfile::TempDir, Position) {
    let store = folder.open();
    for _ in 0..count {
        post(&store, text(1, "words")).await.unwrap();
    }
    let head = store.heads(&[channel(1)]).await.unwrap().remove(0);
    let left = tempfile::tempdir().unwrap();
    for name in [FILE, LOG] {
        copy(folder.dir.path().join(name), left.path().join(name)).unwrap();
    }
    let bytes = metadata(left.path().join(LOG)).unwrap().len();
    assert!(bytes > 0);
    mark(left.path(), 1, bytes);
    store.close().await;
    (left, head.position())
}

fn mark(dir: &Path, position: u64, wal_bytes: u64) {
    let words = format!("position {position}\nwal {wal_bytes}\n");
    write(dir.join("store.mark"), words).unwrap();
}

/// Where the log of a folder stands when it is opened.
async fn opened(folder: &Folder, dir: &Path) -> Position {
    let options = SqliteOptions::new(dir, folder.clock.shared());
    let store = SqliteStore::open(&options).unwrap();
    let head = store.heads(&[channel(1)]).await.unwrap().remove(0);
    store.close().await;
    head.position()
}

#[tokio::test]
async fn a_write_ahead_log_that_was_emptied_cut_or_removed_is_missed() {
    let lose: [fn(&Path); 3] = [
        |log| write(log, "").unwrap(),
        |log| {
            let bytes = std::fs::read(log).unwrap();
            write(log, &bytes[..bytes.len() / 2]).unwrap();
        },
        |log| remove_file(log).unwrap(),
    ];
    for lose in lose {
        let folder = Folder::new();
        // The channel is in the database, and what comes then only in the log.
        post_and_close(&folder, 2).await;
        let (left, before) = killed(&folder, 20).await;
        assert_eq!(before.seq, 22);
        lose(&left.path().join(LOG));
        let after = opened(&folder, left.path()).await;
        assert!(after.seq < before.seq);
        assert!(after.epoch > before.epoch, "its numbers will be used again");
        assert_eq!(opened(&folder, left.path()).await, after, "once is enough");
    }
}

/// The mark is the store's own here, as it was written when the store was opened.
#[tokio::test]
async fn a_write_ahead_log_that_was_removed_right_after_the_start_is_missed() {
    let folder = Folder::new();
    post_and_close(&folder, 2).await;
    let store = folder.open();
    let left = tempfile::tempdir().unwrap();
    for name in [FILE, "store.mark"] {
        copy(folder.dir.path().join(name), left.path().join(name)).unwrap();
    }
    post(&store, text(1, "lost")).await.unwrap();
    let before = store.heads(&[channel(1)]).await.unwrap().remove(0);
    store.close().await;
    let after = opened(&folder, left.path()).await;
    assert_eq!((before.head, after.seq), (3, 2));
    assert!(after.epoch > before.epoch, "its number will be used again");
    assert_eq!(opened(&folder, left.path()).await, after, "once is enough");
}

/// By then the write-ahead log is longer than at the start, and its end can be cut off unseen.
#[tokio::test]
async fn the_mark_knows_of_messages_a_moment_after_they_were_stored() {
    let folder = Folder::new();
    let store = folder.open();
    for _ in 0..3 {
        post(&store, text(1, "words")).await.unwrap();
    }
    let path = folder.dir.path().join("store.mark");
    // It took ten seconds.
    eventually!(Duration::from_secs(8), {
        let mark = std::fs::read_to_string(&path)?;
        ensure!(mark.starts_with("position 3\n"), "{mark}");
        Ok(())
    });
    store.close().await;
}

#[tokio::test]
async fn a_write_ahead_log_that_is_whole_is_not_missed() {
    let folder = Folder::new();
    let (left, before) = killed(&folder, 20).await;
    assert_eq!(opened(&folder, left.path()).await, before);
}

/// What it would have changed is undone, but the log that it brought into the database is gone.
#[tokio::test]
async fn a_new_epoch_that_failed_leaves_nothing_to_be_missed() {
    let folder = Folder::new();
    post_and_close(&folder, 2).await;
    let (left, before) = killed(&folder, 20).await;
    let spoil = |sql: &str| {
        let database = rusqlite::Connection::open(left.path().join(FILE)).unwrap();
        // What is in the log stays there.
        database
            .execute_batch("PRAGMA wal_autocheckpoint = 0")
            .unwrap();
        database
            .set_db_config(
                rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE,
                true,
            )
            .unwrap();
        database.execute_batch(sql).unwrap();
    };
    spoil("UPDATE state SET last_epoch = -last_epoch");
    let log_bytes = metadata(left.path().join(LOG)).unwrap().len();
    mark(left.path(), 1, log_bytes);
    new_epoch(left.path(), &folder.clock.shared()).unwrap_err();
    spoil("UPDATE state SET last_epoch = -last_epoch");
    assert_eq!(opened(&folder, left.path()).await, before);
}
