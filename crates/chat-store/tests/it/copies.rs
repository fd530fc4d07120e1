//! A folder that is put back from a copy.

use std::path::Path;
use std::time::Duration;

use chat_model::{EventHead, Head, Position};
use chat_store::{
    Log, OpenError, PageLimit, PageRange, SqliteOptions, SqliteStore, Store, new_epoch,
};

use crate::posts::{channel, post, text};
use crate::support::Folder;

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

async fn post_many(store: &SqliteStore, count: u64) -> Head {
    for number in 0..count {
        post(store, text(1, number.to_string())).await.unwrap();
    }
    store.heads(&[channel(1)]).await.unwrap().remove(0)
}

#[tokio::test]
async fn twice_from_the_same_copy_gives_two_epochs_that_cut_what_was_lost() {
    let folder = Folder::new();
    let store = folder.open();
    let at_copy = post_many(&store, 100).await;
    store.close().await;
    let backup = tempfile::tempdir().unwrap();
    copy(folder.dir.path(), backup.path());

    let mut lives = Vec::new();
    let store = folder.open();
    lives.push(post_many(&store, 100).await);
    store.close().await;
    for _ in 0..2 {
        folder.clock.advance(Duration::from_secs(1));
        let life = tempfile::tempdir().unwrap();
        copy(backup.path(), life.path());
        assert_eq!(new_epoch(life.path(), &folder.clock.shared()).unwrap(), 1);
        let options = SqliteOptions::new(life.path(), folder.clock.shared());
        let store = SqliteStore::open(&options).unwrap();
        let head = post_many(&store, 50).await;
        assert_eq!((head.head, head.first), (150, 1));
        assert!(head.epoch > lives.last().unwrap().epoch);
        // Beyond the cut: exactly what was lost is named. Before it: nothing is.
        let kept = Position::new(head.epoch, 100);
        let lost = Position::new(at_copy.epoch, 180);
        assert_eq!(head.cut(lost).unwrap().kept, kept);
        assert_eq!(head.cut(Position::new(at_copy.epoch, 100)), None);
        let page = store.page(channel(1), PageRange::After(99), PageLimit::events(2));
        let epochs: Vec<_> = page
            .await
            .unwrap()
            .events
            .iter()
            .map(|event| EventHead::parse(event).unwrap().epoch)
            .collect();
        assert_eq!(epochs, [at_copy.epoch, head.epoch]);
        store.close().await;
        lives.push(head);
    }
}

#[tokio::test]
async fn epochs_of_one_copy_put_back_in_one_moment_differ() {
    let folder = Folder::new();
    let store = folder.open();
    post_many(&store, 1).await;
    store.close().await;
    // 13 random bits: ten copies are all the same once in 10^35.
    let mut epochs = std::collections::HashSet::new();
    for _ in 0..10 {
        let life = tempfile::tempdir().unwrap();
        copy(folder.dir.path(), life.path());
        new_epoch(life.path(), &folder.clock.shared()).unwrap();
        let options = SqliteOptions::new(life.path(), folder.clock.shared());
        let store = SqliteStore::open(&options).unwrap();
        epochs.insert(store.heads(&[channel(1)]).await.unwrap()[0].epoch);
        store.close().await;
    }
    assert!(epochs.len() > 1);
}

#[tokio::test]
async fn new_epoch_refuses_a_folder_in_use_and_one_without_a_store() {
    let folder = Folder::new();
    let clock = folder.clock.shared();
    let empty = new_epoch(folder.dir.path(), &clock).unwrap_err();
    assert!(matches!(empty, OpenError::Unusable { .. }), "{empty}");
    let store = folder.open();
    let used = new_epoch(folder.dir.path(), &clock).unwrap_err();
    assert!(matches!(used, OpenError::Locked { .. }), "{used}");
    store.close().await;
}

#[tokio::test]
async fn many_logs_that_begin_at_once_do_not_run_ahead_of_the_clock() {
    let folder = Folder::new();
    let store = folder.open();
    for number in 0..100 {
        post(&store, text(number, "first")).await.unwrap();
    }
    store.close().await;
    let backup = tempfile::tempdir().unwrap();
    copy(folder.dir.path(), backup.path());
    let store = folder.open();
    post(&store, text(1000, "lost")).await.unwrap();
    let lost = store.heads(&[channel(1000)]).await.unwrap()[0].epoch;
    store.close().await;
    // An eighth of a second later the copy is back, and knows nothing of that channel.
    folder.clock.advance(Duration::from_millis(125));
    new_epoch(backup.path(), &folder.clock.shared()).unwrap();
    let options = SqliteOptions::new(backup.path(), folder.clock.shared());
    let store = SqliteStore::open(&options).unwrap();
    post(&store, text(1000, "again")).await.unwrap();
    assert!(store.heads(&[channel(1000)]).await.unwrap()[0].epoch > lost);
    store.close().await;
}
