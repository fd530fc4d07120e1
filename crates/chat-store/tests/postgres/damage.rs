//! Events that are not what was stored.

use std::time::Duration;

use chat_model::{Damaged, EventHead};
use chat_store::{Log, Outbox, PageLimit, PageRange, Position, PostgresStore, Store, StoreError};
use test_kit::{Postgres, ensure, eventually};

use crate::posts::{channel, post, text};
use crate::support::Database;

#[tokio::test]
async fn changed_and_lost_events_are_named_and_passed_over() {
    let database = Database::new().await;
    let store = database.open().await;
    let start = store.published_to().await.unwrap();
    for number in 1..=6 {
        post(&store, text(1, format!("number {number}")))
            .await
            .unwrap();
    }
    // One is changed, one is gone, one is from before there were checksums.
    database
        .run(
            "UPDATE hark.log SET event = convert_to(replace(convert_from(event, 'UTF8'),
                'number 2', 'number 7'), 'UTF8') WHERE seq = 2;
             DELETE FROM hark.log WHERE seq = 3;
             UPDATE hark.log SET sum = NULL WHERE seq = 5;",
        )
        .await;
    for (range, limit) in [(PageRange::After(0), 50), (PageRange::Newest, 6)] {
        let page = store.page(channel(1), range, PageLimit::events(limit));
        let page = page.await.unwrap();
        let seqs = page.events.iter();
        let seqs: Vec<_> = seqs.map(|e| EventHead::parse(e).unwrap().seq).collect();
        assert_eq!(seqs, [1, 4, 5, 6]);
        assert_eq!(page.damaged, [Damaged { from: 2, to: 3 }]);
    }
    // A page that its size cuts short damages nothing.
    let small = PageLimit {
        events: 50,
        bytes: 1,
    };
    let page = store
        .page(channel(1), PageRange::After(3), small)
        .await
        .unwrap();
    assert_eq!((page.events.len(), page.damaged.len()), (1, 0));
    let waiting = store.unpublished(start, PageLimit::MAX).await.unwrap();
    let seqs: Vec<_> = waiting
        .iter()
        .map(|entry| EventHead::parse(&entry.event).unwrap().seq)
        .collect();
    assert_eq!(seqs, [1, 4, 5, 6]);
    assert!(store.damage().is_some());
    store.close().await;
}

const PATIENCE: Duration = Duration::from_secs(30);
const EVENTS: u64 = 400;

fn numbers<'e>(events: impl IntoIterator<Item = &'e bytes::Bytes>) -> Vec<u64> {
    let numbers = events.into_iter().map(|event| EventHead::parse(event));
    numbers.map(|event| event.unwrap().seq).collect()
}

/// So many events in channel 1, and the page broken in which the one of this number stands.
async fn broken_at(server: &mut Postgres, number: u64) -> Database {
    let database = Database::at(server.database().await);
    let store = database.open().await;
    for number in 1..=EVENTS {
        let words = format!("number {number}.");
        assert_eq!(post(&store, text(1, words)).await.unwrap(), number);
    }
    store.close().await;
    let words = format!("number {number}.");
    server
        .break_page(database.name(), "hark.log_1", words.as_bytes())
        .await;
    database
}

/// All events of channel 1 in pages, forwards or backwards, and the damaged numbers.
async fn read_all(store: &PostgresStore, forwards: bool) -> (Vec<u64>, Vec<u64>) {
    let (mut sound, mut damaged) = (Vec::new(), Vec::new());
    let mut next = if forwards { 0 } else { EVENTS + 1 };
    loop {
        let range = if forwards {
            PageRange::After(next)
        } else {
            PageRange::Before(next)
        };
        let page = store.page(channel(1), range, PageLimit::events(100));
        let page = page.await.unwrap();
        assert_eq!((page.head.first, page.head.head), (1, EVENTS));
        let here = numbers(&page.events);
        let lost: Vec<u64> = page.damaged.iter().flat_map(|d| d.from..=d.to).collect();
        let both = || here.iter().chain(&lost).copied();
        match if forwards { both().max() } else { both().min() } {
            Some(last) => next = last,
            None => break,
        }
        sound.extend(here);
        damaged.extend(lost);
    }
    sound.sort_unstable();
    damaged.sort_unstable();
    (sound, damaged)
}

async fn outbox(store: &PostgresStore, mut after: Position) -> Vec<u64> {
    let mut found = Vec::new();
    loop {
        let page = store.unpublished(after, PageLimit::MAX).await.unwrap();
        let Some(last) = page.last() else { break };
        after = last.position;
        found.extend(numbers(page.iter().map(|entry| &entry.event)));
    }
    store.mark_published(after);
    found
}

#[tokio::test]
async fn page_that_the_server_refuses_costs_the_events_in_it_and_no_others() {
    let mut server = Postgres::start().await;
    let database = broken_at(&mut server, 200).await;
    let mut options = database.options();
    options.retention.max_age = Duration::from_secs(16 * 3600);
    let store = PostgresStore::open(&options).await.unwrap();
    let start = store.published_to().await.unwrap();
    let (sound, damaged) = read_all(&store, true).await;
    assert!(damaged.contains(&200), "{damaged:?}");
    assert!(damaged.len() < 60, "a page of 8 KiB: {damaged:?}");
    let rest: Vec<u64> = (1..=EVENTS).filter(|n| !damaged.contains(n)).collect();
    assert_eq!(sound, rest);
    assert_eq!(read_all(&store, false).await, (rest.clone(), damaged));
    assert!(store.oldest_unpublished().await.unwrap().is_some());
    assert_eq!(outbox(&store, start).await, rest);
    eventually!(PATIENCE, {
        let oldest = store.oldest_unpublished().await?;
        ensure!(oldest.is_none(), "{oldest:?}");
        Ok(())
    });
    assert!(store.damage().is_some());
    store.check().await.unwrap();
    assert_eq!(post(&store, text(1, "next")).await.unwrap(), EVENTS + 1);
    // It goes with all the others when its time has come.
    database.clock.advance(Duration::from_secs(3600));
    store.expire().await.unwrap();
    post(&store, text(1, "last")).await.unwrap();
    database.clock.advance(Duration::from_secs(16 * 3600 - 1));
    assert_eq!(store.expire().await.unwrap(), EVENTS + 1);
    let head = store.heads(&[channel(1)]).await.unwrap().remove(0);
    assert_eq!((head.first, head.head), (EVENTS + 2, EVENTS + 2));
    store.close().await;
}

/// Where new events would go: they go elsewhere.
#[tokio::test]
async fn newest_page_that_the_server_refuses_does_not_stop_posts() {
    let mut server = Postgres::start().await;
    let database = broken_at(&mut server, EVENTS).await;
    let store = database.open().await;
    let start = store.published_to().await.unwrap();
    eventually!(PATIENCE, {
        post(&store, text(1, "next")).await?;
        Ok(())
    });
    assert_eq!(post(&store, text(2, "next")).await.unwrap(), 1);
    let found = outbox(&store, start).await;
    assert!(
        found.len() > 300 && found.ends_with(&[EVENTS + 1, 1]),
        "{found:?}"
    );
    store.close().await;
}

/// What a process that is gone has left is taken over, but for what nobody can read.
#[tokio::test]
async fn page_that_the_server_refuses_does_not_stop_a_rescue() {
    let mut server = Postgres::start().await;
    let database = broken_at(&mut server, 200).await;
    // The first takes the lane with something left, and leaves it.
    let (owner, store) = (database.open().await, database.open().await);
    let start = store.published_to().await.unwrap();
    owner.close().await;
    let mut found = Vec::new();
    let mut after = start;
    eventually!(PATIENCE, {
        for entry in store.unpublished(after, PageLimit::MAX).await? {
            after = entry.position;
            found.extend(numbers([&entry.event]));
        }
        store.mark_published(after);
        let oldest = store.oldest_unpublished().await?;
        ensure!(oldest.is_none(), "{oldest:?}, {} found", found.len());
        Ok(())
    });
    assert!(found.len() > 300 && found.is_sorted(), "{found:?}");
    assert_eq!(found.last(), Some(&EVENTS));
    store.close().await;
}

#[tokio::test]
async fn head_that_the_server_refuses_costs_its_neighbours_and_no_others() {
    const CHANNELS: u128 = 300;
    // Their bytes stand nowhere else.
    const FIRST: u128 = 0x0193_5a7c_2b1e_7d4f_8c3a_6e9b_d200_0000;
    let mut server = Postgres::start().await;
    let database = Database::at(server.database().await);
    let store = database.open().await;
    for number in FIRST..FIRST + CHANNELS {
        post(&store, text(number, "words")).await.unwrap();
    }
    store.close().await;
    let lost = channel(FIRST + 150);
    let bytes = lost.uuid().into_bytes();
    server
        .break_page(database.name(), "hark.channels", &bytes)
        .await;
    let store = database.open().await;
    let all: Vec<_> = (FIRST..FIRST + CHANNELS).map(channel).collect();
    let heads = store.heads(&all).await.unwrap();
    assert!(heads.len() > 150, "{} of {CHANNELS}", heads.len());
    assert!(
        heads
            .iter()
            .all(|head| head.channel != lost && head.head == 1)
    );
    assert!(heads.is_sorted_by_key(|head| head.channel.uuid()));
    let of_the_lost = store.page(lost, PageRange::Newest, PageLimit::MAX).await;
    assert!(
        matches!(of_the_lost, Err(StoreError::Damaged { .. })),
        "{of_the_lost:?}"
    );
    // A batch of both.
    let good = heads[0].channel.uuid().as_u128();
    let (refused, taken) = tokio::join!(
        post(&store, text(FIRST + 150, "words")),
        post(&store, text(good, "words"))
    );
    assert!(
        matches!(refused, Err(StoreError::Damaged { .. })),
        "{refused:?}"
    );
    assert_eq!(taken.unwrap(), 2);
    // The sweep over all channels passes over them, too.
    store.expire().await.unwrap();
    store.check().await.unwrap();
    assert!(store.damage().is_some());
    store.close().await;
}

/// Where the server has no checksums of its own, and a bit has changed.
#[tokio::test]
async fn head_that_makes_no_sense_costs_its_channel_and_no_others() {
    let database = Database::new().await;
    let store = database.open().await;
    for number in 1..=3 {
        post(&store, text(number, "words")).await.unwrap();
    }
    let damage = "UPDATE hark.channels SET head = -9223372036854775807
        WHERE uuid = '00000000-0000-0000-0000-000000000002'";
    database.run(damage).await;
    let heads = store.heads(&[1, 2, 3].map(channel)).await.unwrap();
    let found: Vec<_> = heads.iter().map(|head| head.channel).collect();
    assert_eq!(found, [1, 3].map(channel));
    assert!(store.damage().is_some());
    let page = store.page(channel(2), PageRange::Newest, PageLimit::MAX);
    let page = page.await;
    assert!(matches!(page, Err(StoreError::Damaged { .. })), "{page:?}");
    let (refused, taken) = tokio::join!(
        post(&store, text(2, "words")),
        post(&store, text(3, "words"))
    );
    assert!(
        matches!(refused, Err(StoreError::Damaged { .. })),
        "{refused:?}"
    );
    assert_eq!(taken.unwrap(), 2);
    store.close().await;
}

/// Others of its batch are stored with it, not one by one.
#[tokio::test]
async fn post_into_a_damaged_channel_fails_alone() {
    let database = Database::new().await;
    let store = database.open().await;
    for number in 1..=60 {
        post(&store, text(number, "words")).await.unwrap();
    }
    let damage = "UPDATE hark.channels SET head = -9223372036854775807
        WHERE uuid = '00000000-0000-0000-0000-000000000002'";
    database.run(damage).await;
    let before = store.stats().commits;
    let batch = (1..=60).map(|number| post(&store, text(number, "words")));
    let answers = futures_util::future::join_all(batch).await;
    for (answer, number) in answers.into_iter().zip(1..) {
        match answer {
            Err(StoreError::Damaged { .. }) if number == 2 => {}
            answer => assert_eq!(answer.unwrap(), 2, "channel {number}"),
        }
    }
    let commits = store.stats().commits - before;
    assert!(commits < 4, "{commits} commits");
    store.close().await;
}

/// So many events in channel 1, each of whose words are unique.
async fn post_all(store: &PostgresStore, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        let words = format!("number {number}.");
        assert_eq!(post(store, text(1, words)).await.unwrap(), number);
    }
}

/// Neither can be read where its floors should come from; the older one expires all the same.
#[tokio::test]
async fn damaged_segment_expires_although_the_next_one_is_damaged_too() {
    const HOUR: Duration = Duration::from_secs(3600);
    let mut server = Postgres::start().await;
    let database = Database::at(server.database().await);
    let mut options = database.options();
    options.retention.max_age = HOUR * 16;
    let store = PostgresStore::open(&options).await.unwrap();
    post_all(&store, 1..=200).await;
    database.clock.advance(HOUR * 2);
    store.expire().await.unwrap();
    post_all(&store, 201..=400).await;
    database.clock.advance(HOUR * 2);
    store.expire().await.unwrap();
    post_all(&store, 401..=402).await;
    store.close().await;
    for (segment, number) in [(1, 200), (2, 201)] {
        let (table, words) = (format!("hark.log_{segment}"), format!("number {number}."));
        server
            .break_page(database.name(), &table, words.as_bytes())
            .await;
    }
    let store = PostgresStore::open(&options).await.unwrap();
    database.clock.advance(HOUR * 13);
    store.expire().await.unwrap();
    let head = store.heads(&[channel(1)]).await.unwrap().remove(0);
    assert!((201..300).contains(&head.first), "{}", head.first);
    let there = "SELECT count(*) FROM hark.segments WHERE n = 1";
    assert_eq!(server.run(database.name(), there).await, "0");
    store.close().await;
}

/// The rows of such channels stay; what lies behind them is shortened.
#[tokio::test]
async fn damaged_index_does_not_stop_the_sweep_over_all_channels() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    const ID: u128 = 0x0193_5a7c_2b1e_7d4f_8c3a_6e9b_d200_0001;
    let mut server = Postgres::start().await;
    let database = Database::at(server.database().await);
    let mut options = database.options();
    options.keys.max_age = DAY * 100;
    let store = PostgresStore::open(&options).await.unwrap();
    let mut keyed = text(1, "words");
    keyed.message.id = Some(uuid::Uuid::from_u128(ID));
    post(&store, keyed).await.unwrap();
    // More than a step of the sweep looks at.
    let others = (2..=700).map(|number| post(&store, text(number, "words")));
    futures_util::future::join_all(others).await;
    for _ in 0..2 {
        // Its events go; and then, but for its key, it would.
        database.clock.advance(DAY * 31);
        store.expire().await.unwrap();
        post(&store, text(701, "words")).await.unwrap();
    }
    for seq in 1..=4 {
        assert_eq!(post(&store, text(700, "words")).await.unwrap(), seq);
    }
    store.close().await;
    let key = ID.to_be_bytes();
    let index = "hark.sender_keys_channel_no_key_key";
    server.break_page(database.name(), index, &key).await;
    options.retention.max_per_channel = 1;
    let store = PostgresStore::open(&options).await.unwrap();
    store.expire().await.unwrap();
    let head = store.heads(&[channel(700)]).await.unwrap().remove(0);
    assert_eq!((head.first, head.head), (4, 4));
    assert!(store.damage().is_some());
    store.close().await;
}
