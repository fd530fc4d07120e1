//! A page of the database that cannot be read stops neither posts nor what expires.

use std::time::Duration;

use chat_store::{IdempotencyKey, Log, SqliteOptions, SqliteStore, Store};
use futures_util::future::join_all;

use crate::posts::{channel, post, text};
use crate::support::Folder;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The number of the oldest message of channel 1.
async fn first(store: &SqliteStore) -> u64 {
    store.heads(&[channel(1)]).await.unwrap()[0].first
}

/// A folder with so many messages in channel 1, some twenty to a page.
async fn filled(count: u64) -> Folder {
    let folder = Folder::new();
    let store = folder.open();
    let numbers: Vec<_> = (0..count).collect();
    // So few at a time that they come in this order.
    for some in numbers.chunks(20) {
        let posts = some.iter();
        let posts = posts.map(|number| post(&store, text(1, format!("{number} "))));
        for posted in join_all(posts).await {
            posted.unwrap();
        }
    }
    store.close().await;
    folder
}

/// A folder with 200 messages in channel 1, each with a key of its own.
async fn filled_with_keys() -> Folder {
    let folder = Folder::new();
    let store = folder.open();
    let posts = (0..200_u64).map(|key| {
        let mut new = text(1, "words");
        new.key = Some(IdempotencyKey::new(&key.to_le_bytes()));
        post(&store, new)
    });
    for posted in join_all(posts).await {
        posted.unwrap();
    }
    store.close().await;
    folder
}

fn open(folder: &Folder, change: impl FnOnce(&mut SqliteOptions)) -> SqliteStore {
    let mut options = folder.options();
    change(&mut options);
    SqliteStore::open(&options).unwrap()
}

#[tokio::test]
async fn a_lost_page_among_events_that_are_still_to_be_counted_stops_no_post() {
    for lost in ["0 ", "30 "] {
        let folder = Folder::new();
        folder.fill(60, 300).await;
        folder.lose_pages(format!("\"text\":\"{lost}").as_bytes());
        // As in a store of the time before they were counted.
        folder.change("UPDATE state SET log_bytes = -1");
        for seq in 61..=62 {
            let store = folder.open();
            let posted = post(&store, text(1, "next")).await;
            assert_eq!(posted.unwrap(), seq, "without the page of {lost}");
            store.close().await;
        }
    }
}

#[tokio::test]
async fn a_lost_page_of_the_oldest_keys_stops_no_post() {
    let folder = filled_with_keys().await;
    let oldest = folder.ask("SELECT id FROM sender_keys ORDER BY n LIMIT 1");
    folder.lose_pages(&oldest);
    let store = folder.open();
    assert_eq!(post(&store, text(1, "next")).await.unwrap(), 201);
    let mut new = text(1, "words");
    new.key = Some(IdempotencyKey::new(b"new"));
    assert_eq!(post(&store, new.clone()).await.unwrap(), 202);
    assert_eq!(post(&store, new).await.unwrap(), 202);
    let keys = store.stats().keys;
    assert!((100..=202).contains(&keys), "{keys} keys");
    store.close().await;
}

#[tokio::test]
async fn what_expires_goes_around_lost_pages() {
    let folder = filled(3_000).await;
    // At the very start, and among the rest.
    folder.lose_pages(b"\"text\":\"0 \"");
    folder.lose_pages(b"\"text\":\"1200 \"");
    folder.clock.advance(31 * DAY);
    for round in 1..=3 {
        // Days that pass while it is closed do not count: they pass while it is open.
        let store = folder.open();
        folder.clock.advance(31 * DAY);
        assert_eq!(post(&store, text(1, "next")).await.unwrap(), 3_000 + round);
        store.expire().await.unwrap();
        assert_eq!(first(&store).await, 3_000 + round, "in round {round}");
        if round == 1 {
            let expired = store.stats().expired;
            assert!((2_900..3_000).contains(&expired), "{expired} expired");
        }
        store.close().await;
    }
    // The rows beside the lost pages stay in the file; those of the other steps do not.
    assert_eq!(folder.count("log WHERE pos > 2300"), 1);
}

#[tokio::test]
async fn what_expires_goes_around_rows_that_make_no_sense() {
    let folder = filled(100).await;
    folder.change(
        "UPDATE log SET kept_at = 'x', seq = 'y', bytes_to = 'z' WHERE pos = 1;
         UPDATE log SET kept_at = 1 << 60, channel_no = 'x' WHERE pos = 3;
         UPDATE log SET kept_at = -1, at = 'x' WHERE pos = 100;",
    );
    let store = folder.open();
    folder.clock.advance(31 * DAY);
    assert_eq!(post(&store, text(1, "next")).await.unwrap(), 101);
    store.expire().await.unwrap();
    assert_eq!(first(&store).await, 101);
    store.close().await;
    assert_eq!(folder.count("log"), 1);
    assert_eq!(folder.count("places") + folder.count("new_places"), 1);
}

#[tokio::test]
async fn a_size_is_kept_around_lost_pages() {
    let folder = filled(3_000).await;
    folder.lose_pages(b"\"text\":\"0 \"");
    let store = open(&folder, |options| options.retention.max_bytes = 100_000);
    store.expire().await.unwrap();
    let first = first(&store).await;
    assert!((2_000..3_000).contains(&first), "{first}");
    store.close().await;
}

#[tokio::test]
async fn a_channel_is_held_to_its_bound_around_lost_pages() {
    let folder = filled(300).await;
    folder.lose_pages(b"\"text\":\"0 \"");
    folder.lose_pages(b"\"text\":\"150 \"");
    let store = open(&folder, |options| options.retention.max_per_channel = 10);
    store.expire().await.unwrap();
    assert_eq!(first(&store).await, 291);
    assert!(store.damage().is_some());
    assert_eq!(post(&store, text(1, "next")).await.unwrap(), 301);
    store.close().await;
}

#[tokio::test]
async fn lost_keys_keep_nothing_else_from_expiring() {
    let folder = filled_with_keys().await;
    folder.lose_pages(&folder.ask("SELECT id FROM sender_keys WHERE n = 100"));
    let store = folder.open();
    folder.clock.advance(31 * DAY);
    assert_eq!(post(&store, text(1, "next")).await.unwrap(), 201);
    store.expire().await.unwrap();
    assert_eq!(first(&store).await, 201);
    store.close().await;
}

#[tokio::test]
async fn a_lost_page_of_the_places_stops_no_post_beside_it() {
    let folder = Folder::new();
    let post_some = async |store: &SqliteStore, number, count: usize| {
        let mut left = count;
        while left > 0 {
            let some = left.min(20);
            let posts = (0..some).map(|_| post(store, text(number, "words")));
            for posted in join_all(posts).await {
                posted.unwrap();
            }
            left -= some;
        }
    };
    let store = folder.open();
    post_some(&store, 1, 200).await;
    post_some(&store, 2, 1_400).await;
    store.close().await;
    // Where channel 2 has its number 250: the page behind the one that channel 1 grows in.
    folder.lose_pages(&[4, 1, 2, 2, 2, 0, 250, 1, 194]);
    let store = folder.open();
    post_some(&store, 1, 1_200).await;
    store.close().await;
}
