//! The bound on how many of the senders' keys are remembered.

use std::time::Duration;

use chat_store::{Append, IdempotencyKey, SqliteStore, Store, StoreError};

use crate::posts::{post, text};
use crate::support::Folder;

const MINUTE: Duration = Duration::from_secs(60);

fn keyed(key: u64) -> Append {
    Append {
        key: Some(IdempotencyKey::new(&key.to_le_bytes())),
        ..text(1, key.to_string())
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
        Err(StoreError::KeysFull { retry_after }) => assert_eq!(retry_after, 20 * MINUTE),
        other => panic!("not full: {other:?}"),
    }
    assert_eq!(post(&store, text(1, "no key")).await.unwrap(), 5);
    assert_eq!(post(&store, keyed(0)).await.unwrap(), 1, "still known");
    folder.clock.advance(20 * MINUTE);
    assert_eq!(post(&store, keyed(4)).await.unwrap(), 6);
    let stats = store.stats();
    assert_eq!((stats.keys, stats.keys_dropped_early), (4, 1));
    store.close().await;
    // The bound holds over a restart, and so does what is known.
    let store = SqliteStore::open(&options).unwrap();
    assert_eq!(post(&store, keyed(1)).await.unwrap(), 2);
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
        7,
        "a new message by now"
    );
    assert_eq!(store.stats().keys_dropped_early, 0);
    store.close().await;
}
