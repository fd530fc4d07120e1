//! A folder that lacks what it had, and nobody said so.

use std::fs::{copy, remove_file, write};

use chat_model::Position;
use chat_store::{SqliteStore, Store, StoreError};

use crate::posts::{channel, post, text};
use crate::support::Folder;

const FILE: &str = "store.sqlite3";

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
        assert!(matches!(refused, StoreError::Unusable { .. }), "{refused}");
        assert!(refused.to_string().contains("hark restore"), "{refused}");
    }
    remove_file(folder.dir.path().join("store.mark")).unwrap();
    assert_eq!(post_and_close(&folder, 1).await.seq, 1);
}
