//! Several stores on one database.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use chat_model::EventHead;
use chat_store::{
    Appended, IdempotencyKey, Log, Outbox, Owner, PageLimit, PageRange, PostgresStore, Store,
    StoreError,
};
use test_kit::{ensure, eventually};

use crate::posts::{channel, post, text};
use crate::support::Database;

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn stores_on_one_channel_leave_no_hole() {
    const EACH: u64 = 400;
    let database = Database::new().await;
    let stores = [database.open().await, database.open().await];
    let mut lanes = HashSet::new();
    for store in &stores {
        lanes.insert(store.published_to().await.unwrap().lane());
    }
    assert_eq!(lanes.len(), 2, "each has its own lane");
    let posts = |store: &'static PostgresStore| async move {
        let all = (0..EACH).map(|number| post(store, text(1, number.to_string())));
        futures_util::future::join_all(all).await
    };
    let [one, two] = stores.map(|store| &*Box::leak(Box::new(store)));
    let (ones, twos) = tokio::join!(posts(one), posts(two));
    let mut seqs: Vec<u64> = ones.into_iter().chain(twos).map(Result::unwrap).collect();
    seqs.sort_unstable();
    assert!(seqs.into_iter().eq(1..=EACH * 2));
    let page = one.page(channel(1), PageRange::After(0), PageLimit::MAX);
    let page = page.await.unwrap();
    assert_eq!(
        (page.head.head, page.events.len() as u64),
        (EACH * 2, EACH * 2)
    );
    // Each has its own in its outbox, both together have all.
    let mut found = HashSet::new();
    for store in [one, two] {
        let mut after = store.published_to().await.unwrap();
        for _ in 0.. {
            let page = store.unpublished(after, PageLimit::MAX).await.unwrap();
            let Some(last) = page.last() else { break };
            after = last.position;
            for entry in page {
                assert!(
                    found.insert(EventHead::parse(&entry.event).unwrap().seq),
                    "twice"
                );
            }
        }
        assert!(store.oldest_unpublished().await.unwrap().is_some());
        store.mark_published(after);
    }
    assert_eq!(found.len() as u64, EACH * 2);
    eventually!(PATIENCE, {
        for store in [one, two] {
            let oldest = store.oldest_unpublished().await?;
            ensure!(oldest.is_none(), "{oldest:?}");
        }
        Ok(())
    });
    one.close().await;
    two.close().await;
}

#[tokio::test]
async fn same_key_at_two_stores_is_stored_once() {
    let database = Database::new().await;
    let stores = [
        Arc::new(database.open().await),
        Arc::new(database.open().await),
    ];
    for round in 0..20_u128 {
        let new = || {
            let mut new = text(round % 3, "same");
            new.key = Some(IdempotencyKey::new(&round.to_be_bytes()));
            new
        };
        let posts = (0..6).map(|number: usize| stores[number % 2].append(new()));
        let outcomes = futures_util::future::join_all(posts).await;
        let stored = |outcome: &&Result<Appended, StoreError>| {
            matches!(outcome, Ok(Appended::Stored { .. }))
        };
        assert_eq!(outcomes.iter().filter(stored).count(), 1);
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    }
}

#[tokio::test]
async fn what_a_closed_store_has_not_published_is_taken_over() {
    const LEFT: usize = 1_200;
    let database = Database::new().await;
    let (one, two) = (database.open().await, database.open().await);
    let mut commits = two.follow(16);
    // More than is moved at a time.
    let posts = (0..LEFT).map(|_| post(&one, text(1, "left behind")));
    let posted = futures_util::future::join_all(posts).await;
    assert!(posted.iter().all(Result::is_ok));
    one.close().await;
    let mut taken = Vec::new();
    while taken.len() < LEFT {
        let batch = tokio::time::timeout(PATIENCE, commits.recv()).await;
        taken.extend(batch.expect("in time").expect("still following"));
    }
    assert!(taken.is_sorted_by(|a, b| a.position < b.position));
    let lane = two.published_to().await.unwrap().lane();
    assert!(taken.iter().all(|entry| entry.position.lane() == lane));
    let start = two.published_to().await.unwrap();
    let page = two.unpublished(start, PageLimit::MAX).await.unwrap();
    assert_eq!(page, taken[..page.len()]);
    let seqs = taken
        .iter()
        .map(|entry| EventHead::parse(&entry.event).unwrap().seq);
    assert!(seqs.eq(1..=LEFT as u64));
    let waiting = two.stats().unpublished;
    assert!(waiting >= LEFT as u64, "{waiting}");
    two.close().await;
    // Whoever comes next takes the lane that has something left.
    let three = database.open().await;
    assert_eq!(three.published_to().await.unwrap(), start);
    assert_eq!(three.stats().unpublished, waiting);
}

#[tokio::test]
async fn keys_are_bounded_and_the_oldest_go_first() {
    let database = Database::new().await;
    let mut options = database.options();
    options.keys.max_count = 10;
    options.keys.min_age = Duration::from_secs(3600);
    let store = PostgresStore::open(&options).await.unwrap();
    // By somebody each, in a channel each: nobody has more than a share.
    let keyed = |number: u8| {
        let mut new = text(number.into(), "same");
        new.key = Some(IdempotencyKey::new(&[number]));
        new.owner = Owner::new(number.into());
        new
    };
    for number in 0..10 {
        post(&store, keyed(number)).await.unwrap();
    }
    let full = store.append(keyed(10)).await;
    let an_hour = Duration::from_secs(3600);
    assert!(
        matches!(full, Err(StoreError::KeysFull { retry_after, .. }) if retry_after <= an_hour),
        "{full:?}"
    );
    assert_eq!(post(&store, text(1, "without a key")).await.unwrap(), 2);
    database.clock.advance(an_hour);
    assert_eq!(post(&store, keyed(10)).await.unwrap(), 1);
    assert_eq!(post(&store, keyed(9)).await.unwrap(), 1, "remembered");
    assert_eq!(post(&store, keyed(0)).await.unwrap(), 2, "forgotten");
    let stats = store.stats();
    assert_eq!((stats.keys_dropped_early, stats.refused), (2, 1));
    assert_eq!(
        database.run("SELECT count(*) FROM hark.sender_keys").await,
        "10"
    );
    store.close().await;
}

/// Clocks of machines differ, and all compare with what another one has stored.
#[tokio::test]
async fn clocks_that_differ_make_nothing_old() {
    let database = Database::new().await;
    let day = Duration::from_secs(24 * 3600);
    let before = database.open().await;
    let other = Database::at(database.url.clone());
    other.clock.advance(day);
    let ahead = other.open().await;
    let stores = [&before, &ahead];
    for store in stores {
        post(store, text(1, "words")).await.unwrap();
        for asked in stores {
            let age = asked.oldest_unpublished().await.unwrap();
            assert!(age.is_some_and(|age| age < day / 2), "{age:?}");
        }
    }
    before.close().await;
    ahead.close().await;
}
