//! Copies of a store that is in use.

use std::time::Duration;

use chat_store::{Log, OpenError, PageLimit, PageRange, SqliteOptions, SqliteStore, Store};
use chat_store::{backup, restore};

use crate::posts::{channel, post, text};
use crate::support::Folder;

#[tokio::test]
async fn copy_of_a_busy_store_is_of_one_moment_and_goes_on_in_a_new_epoch() {
    let folder = Folder::new();
    let store = folder.open();
    let mut posts = Box::pin(async {
        for number in 0_u64.. {
            post(&store, text(u128::from(number % 3), "words"))
                .await
                .unwrap();
        }
    });
    tokio::select! {
        () = &mut posts => unreachable!("it has no end"),
        () = async {
            while store.stats().stored < 100 {
                tokio::task::yield_now().await;
            }
        } => {}
    }
    let (dir, copy) = (folder.dir.path().to_owned(), folder.dir.path().join("copy"));
    let (to, clock) = (copy.clone(), folder.clock.shared());
    let copying = tokio::task::spawn_blocking(move || backup(&dir, &to));
    let bytes = tokio::select! {
        () = posts => unreachable!("it has no end"),
        copied = copying => copied.unwrap().unwrap(),
    };
    assert_eq!(copy.metadata().unwrap().len(), bytes);
    let all = [channel(0), channel(1), channel(2)];
    let later = store.heads(&all).await.unwrap();
    store.close().await;

    let back = tempfile::tempdir().unwrap();
    assert_eq!(restore(&copy, back.path(), &clock).unwrap(), 3);
    folder.clock.advance(Duration::from_secs(1));
    let store = SqliteStore::open(&SqliteOptions::new(back.path(), clock)).unwrap();
    let heads = store.heads(&all).await.unwrap();
    for (head, later) in heads.iter().zip(later) {
        assert!(head.head > 30 && head.head <= later.head && head.epoch > later.epoch);
        let page = store.page(head.channel, PageRange::After(0), PageLimit::MAX);
        let kept = page.await.unwrap().events.len() as u64;
        assert_eq!(kept, head.head.min(1_000));
    }
    let most = heads.iter().map(|head| head.head).max().unwrap();
    let least = heads.iter().map(|head| head.head).min().unwrap();
    assert!(most - least <= 1, "posts went round: {heads:?}");
    assert_eq!(
        post(&store, text(0, "next")).await.unwrap(),
        heads[0].head + 1
    );
    store.close().await;
    let file = rusqlite::Connection::open(back.path().join("store.sqlite3")).unwrap();
    let incremental = 2;
    let auto_vacuum = file.query_row("PRAGMA auto_vacuum", [], |row| row.get(0));
    assert_eq!(
        auto_vacuum,
        Ok(incremental),
        "it gives room back as the first did"
    );
}

#[tokio::test]
async fn nothing_is_written_over_and_no_half_copy_is_left() {
    let folder = Folder::new();
    let store = folder.open();
    post(&store, text(1, "one")).await.unwrap();
    let dir = folder.dir.path();
    let copy = dir.join("copy");
    std::fs::write(&copy, "precious").unwrap();
    let refused = backup(dir, &copy).unwrap_err();
    assert!(matches!(refused, OpenError::BadCopy { .. }), "{refused}");
    assert_eq!(std::fs::read(&copy).unwrap(), b"precious");
    let clock = folder.clock.shared();
    let back = tempfile::tempdir().unwrap();
    let no_store = restore(&copy, back.path(), &clock).unwrap_err();
    assert!(matches!(no_store, OpenError::BadCopy { .. }), "{no_store}");
    assert!(!back.path().join("store.sqlite3").exists());
    let nothing = backup(back.path(), &dir.join("other")).unwrap_err();
    assert!(matches!(nothing, OpenError::Unusable { .. }), "{nothing}");
    assert!(!dir.join("other").exists());

    std::fs::remove_file(&copy).unwrap();
    backup(dir, &copy).unwrap();
    let in_use = restore(&copy, dir, &clock).unwrap_err();
    assert!(matches!(in_use, OpenError::Locked { .. }), "{in_use}");
    store.close().await;
    let there = restore(&copy, dir, &clock).unwrap_err();
    assert!(matches!(there, OpenError::Unusable { .. }), "{there}");
    let kept: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(kept.iter().any(|name| name == "store.sqlite3"), "{kept:?}");
}

#[test]
fn file_of_another_program_is_not_put_back() {
    let folder = Folder::new();
    let file = folder.dir.path().join("other.db");
    let other = rusqlite::Connection::open(&file).unwrap();
    other.execute_batch("CREATE TABLE t (x)").unwrap();
    drop(other);
    let back = tempfile::tempdir().unwrap();
    let refused = restore(&file, back.path(), &folder.clock.shared()).unwrap_err();
    assert!(
        refused.to_string().contains("no store of Hark"),
        "{refused}"
    );
}
