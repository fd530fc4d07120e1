//! Channels of which nothing is left.

use std::time::Duration;

use chat_store::{IdempotencyKey, Log, Store};

use crate::posts::{channel, post, text};
use crate::support::Database;

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test]
async fn channel_whose_keys_are_remembered_is_not_forgotten() {
    let database = Database::new().await;
    let mut options = database.options();
    options.keys.max_age = DAY * 100;
    let store = chat_store::PostgresStore::open(&options).await.unwrap();
    let keyed = || {
        let mut new = text(1, "words");
        new.key = Some(IdempotencyKey::new(b"key"));
        new
    };
    assert_eq!(post(&store, keyed()).await.unwrap(), 1);
    for _ in 0..2 {
        database.clock.advance(DAY * 40);
        store.expire().await.unwrap();
    }
    assert_eq!(post(&store, keyed()).await.unwrap(), 1, "remembered");
    assert_eq!(post(&store, text(1, "words")).await.unwrap(), 2);
    store.close().await;
}

/// To forget others sooner would make no room.
#[tokio::test]
async fn channels_that_cannot_be_forgotten_hurry_no_others() {
    let database = Database::new().await;
    let mut options = database.options();
    options.keys.max_age = DAY * 100;
    let store = chat_store::PostgresStore::open(&options).await.unwrap();
    post(&store, text(1, "words")).await.unwrap();
    // More than are remembered for long, with a key each.
    database
        .run(
            "INSERT INTO hark.channels (uuid, head, floor, epoch, epochs, epoch_starts, emptied)
                SELECT gen_random_uuid(), 1, 1, 5, '{5}', '{1}', 0 FROM generate_series(1, 100001);
             INSERT INTO hark.sender_keys (channel_no, key, fingerprint, id, epoch, seq, kept_at, segment)
                SELECT no, decode(lpad(to_hex(no), 34, '0'), 'hex'), '', gen_random_uuid(), 5, 1,
                    1000000000, 1
                FROM hark.channels WHERE epoch = 5",
        )
        .await;
    database.clock.advance(DAY * 31);
    store.expire().await.unwrap();
    database.clock.advance(DAY * 16);
    store.expire().await.unwrap();
    let head = store.heads(&[channel(1)]).await.unwrap().remove(0);
    assert_eq!((head.first, head.head), (2, 1), "16 days are not 30");
    store.close().await;
}
