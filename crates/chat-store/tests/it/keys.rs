//! The bound on how many of the senders' keys are remembered.

use std::time::Duration;

use chat_store::{Append, IdempotencyKey, Owner, Share, SqliteStore, Store, StoreError};

use crate::posts::{post, text};
use crate::support::Folder;

const MINUTE: Duration = Duration::from_secs(60);

/// A post by somebody who has posted nothing else with a key, in a channel of his own.
fn keyed(key: u64) -> Append {
    Append {
        key: Some(IdempotencyKey::new(&key.to_le_bytes())),
        owner: Owner::new(key),
        ..text(key.into(), key.to_string())
    }
}

#[tokio::test]
async fn oldest_keys_make_room_but_none_younger_than_an_hour() {
    let folder = Folder::new();
    let mut options = folder.options();
    options.keys.max_count = 4;
    let store = SqliteStore::open(&options).unwrap();
    for key in 0..4 {
        post(&store, keyed(key)).await.unwrap();
        folder.clock.advance(10 * MINUTE);
    }
    match post(&store, keyed(4)).await {
        Err(StoreError::KeysFull { share, retry_after }) => {
            assert_eq!((share, retry_after), (Share::All, 20 * MINUTE));
        }
        other => panic!("not full: {other:?}"),
    }
    assert_eq!(post(&store, text(0, "no key")).await.unwrap(), 2);
    assert_eq!(post(&store, keyed(0)).await.unwrap(), 1, "still known");
    folder.clock.advance(20 * MINUTE);
    assert_eq!(post(&store, keyed(4)).await.unwrap(), 1);
    let stats = store.stats();
    assert_eq!((stats.keys, stats.keys_dropped_early), (4, 1));
    assert_eq!((stats.keys_refused, stats.keys_refused_by_share), (1, 0));
    store.close().await;
    // The bound holds over a restart, and so does what is known.
    let store = SqliteStore::open(&options).unwrap();
    assert_eq!(post(&store, keyed(1)).await.unwrap(), 1);
    assert!(matches!(
        post(&store, keyed(5)).await,
        Err(StoreError::KeysFull { .. })
    ));
    assert_eq!(store.stats().refused, 1);
    // After a day they go by age, and nothing was dropped early.
    folder.clock.advance(24 * 60 * MINUTE);
    assert_eq!(store.expire().await.unwrap(), 0);
    assert_eq!(store.stats().keys, 0);
    assert_eq!(
        post(&store, keyed(0)).await.unwrap(),
        3,
        "a new message by now"
    );
    assert_eq!(store.stats().keys_dropped_early, 0);
    store.close().await;
}

/// Where the memory is always full, of keys that may go, nobody is refused for that.
#[tokio::test]
async fn keys_old_enough_to_go_take_nobodys_share() {
    let folder = Folder::new();
    let mut options = folder.options();
    options.keys.max_count = 8;
    let store = SqliteStore::open(&options).unwrap();
    for key in 0..100 {
        let one = Append {
            owner: Owner::new(1),
            ..keyed(key)
        };
        post(&store, one).await.unwrap();
        folder.clock.advance(30 * MINUTE);
    }
    let stats = store.stats();
    assert_eq!((stats.keys, stats.refused), (8, 0));
    assert!(stats.keys_dropped_early > 0);
    store.close().await;
}
