//! A database in which a disk has changed something.

use std::time::Duration;

use chat_model::{Damaged, EventHead};
use chat_store::{Log, Outbox, PageLimit, PageRange, Position, SqliteStore, Store, StoreError};
use test_kit::{ensure, eventually};

use crate::posts::{channel, post, text};
use crate::support::Folder;

/// The numbers that a page has, and those that it calls damaged.
async fn page(store: &SqliteStore, range: PageRange, limit: usize) -> (Vec<u64>, Vec<(u64, u64)>) {
    let page = store.page(channel(1), range, PageLimit::events(limit));
    let page = page.await.unwrap();
    let seqs = page.events.iter();
    let seqs = seqs.map(|event| EventHead::parse(event).unwrap().seq);
    let damaged = page.damaged.iter().map(|&Damaged { from, to }| (from, to));
    (seqs.collect(), damaged.collect())
}

async fn outbox(store: &SqliteStore) -> Vec<u64> {
    let mut after = Position::START;
    let mut seqs = Vec::new();
    loop {
        let some = store
            .unpublished(after, PageLimit::events(3))
            .await
            .unwrap();
        let Some(last) = some.last() else {
            return seqs;
        };
        after = last.position;
        seqs.extend(some.iter().map(|e| EventHead::parse(&e.event).unwrap().seq));
    }
}

#[tokio::test]
async fn flipped_bits_lost_rows_and_swapped_events_are_named_and_passed_over() {
    let folder = Folder::new();
    folder.fill(10, 10).await;
    folder.change(
        // A bit in the text, which stays good JSON; a row that is gone; one in another's place.
        "UPDATE log SET event = CAST(replace(event, '\"2 ', '\"3 ') AS BLOB) WHERE seq = 3;
         DELETE FROM log WHERE seq = 4;
         UPDATE log SET event = (SELECT event FROM log WHERE seq = 8) WHERE seq = 7;",
    );
    let store = folder.open();
    assert_eq!(store.damage(), None, "nothing was read yet");
    let rest = vec![1, 2, 5, 6, 8, 9, 10];
    let all = page(&store, PageRange::After(0), 50).await;
    assert_eq!(all, (rest.clone(), vec![(3, 4), (7, 7)]));
    let newest = page(&store, PageRange::Newest, 50).await;
    assert_eq!(newest, all);
    // Damaged numbers count, so that a reader goes on behind them.
    assert_eq!(
        page(&store, PageRange::After(2), 2).await,
        (vec![], vec![(3, 4)])
    );
    assert_eq!(
        page(&store, PageRange::Before(8), 2).await,
        (vec![6], vec![(7, 7)])
    );
    assert_eq!(outbox(&store).await, rest);
    let damage = store.damage().unwrap();
    assert!(damage.contains("messages 3 to 4 of channel"), "{damage}");
    assert!(store.stats().damaged >= 3);
    assert_eq!(post(&store, text(1, "next")).await.unwrap(), 11);
    store.close().await;
}

#[tokio::test]
async fn events_from_before_there_were_checksums_stay_readable() {
    let folder = Folder::new();
    folder.fill(4, 10).await;
    folder.change("UPDATE log SET sum = NULL; UPDATE log SET event = x'7b22' WHERE seq = 2;");
    let store = folder.open();
    let all = page(&store, PageRange::After(0), 50).await;
    assert_eq!(all, (vec![1, 3, 4], vec![(2, 2)]));
    store.close().await;
}

#[tokio::test]
async fn a_lost_page_of_the_database_costs_the_events_in_it_and_no_others() {
    let folder = Folder::new();
    // Some twenty events to a page of 4 KiB, so that there are many leaves.
    folder.fill(400, 10).await;
    let path = folder.dir.path().join("store.sqlite3");
    let mut bytes = std::fs::read(&path).unwrap();
    let needle = b"\"text\":\"200 ";
    let at = bytes.windows(needle.len()).position(|part| part == needle);
    let start = at.unwrap() / 4096 * 4096;
    // Not the header of any kind of page.
    bytes[start..start + 16].fill(0xee);
    std::fs::write(&path, bytes).unwrap();

    let mut named = Vec::new();
    let checked = chat_store::check(folder.dir.path(), |_, range| named.push(range)).unwrap();
    assert!(!checked.is_sound() && !checked.database.is_empty());
    let store = folder.open();
    assert!(
        store.damage().is_some(),
        "a quick look at the start finds it"
    );
    let (events, damaged) = page(&store, PageRange::After(0), 1_000).await;
    let [(from, to)] = damaged[..] else {
        panic!("one page, one gap: {damaged:?}")
    };
    assert!(
        (from..=to).contains(&201) && to - from < 50,
        "{from} to {to}"
    );
    let rest: Vec<_> = (1..=400).filter(|seq| !(from..=to).contains(seq)).collect();
    assert_eq!(events, rest);
    assert_eq!(outbox(&store).await, rest);
    assert_eq!(
        (checked.sound, checked.damaged),
        (rest.len() as u64, 1 + to - from)
    );
    assert_eq!(named, [Damaged { from, to }]);
    assert_eq!(post(&store, text(1, "next")).await.unwrap(), 401);
    store.close().await;
}

#[tokio::test]
async fn a_damaged_head_costs_its_channel_and_no_others() {
    let folder = Folder::new();
    let store = folder.open();
    for number in 1..=3 {
        post(&store, text(number, "words")).await.unwrap();
    }
    store.close().await;
    folder.change(
        "UPDATE epochs SET epoch = -1 WHERE channel_no =
            (SELECT channel_no FROM channels WHERE uuid = x'00000000000000000000000000000002')",
    );
    let store = folder.open();
    let heads = store.heads(&[1, 2, 3].map(channel)).await.unwrap();
    let found: Vec<_> = heads.iter().map(|head| head.channel).collect();
    assert_eq!(found, [1, 3].map(channel));
    assert!(store.damage().is_some());
    let page = store
        .page(channel(2), PageRange::Newest, PageLimit::MAX)
        .await;
    assert!(matches!(page, Err(StoreError::Damaged { .. })), "{page:?}");
    let refused = post(&store, text(2, "words")).await;
    assert!(
        matches!(refused, Err(StoreError::Damaged { .. })),
        "{refused:?}"
    );
    assert_eq!(post(&store, text(3, "words")).await.unwrap(), 2);
    store.close().await;
}

/// Flips a bit of a channel's name where the database has it `nth`: in the table, or in its index.
fn flip_name(folder: &Folder, number: u128, nth: usize) {
    let path = folder.dir.path().join("store.sqlite3");
    let mut bytes = std::fs::read(&path).unwrap();
    let name = *channel(number).uuid().as_bytes();
    let found = bytes.windows(16).enumerate();
    let places: Vec<_> = found
        .filter(|(_, part)| *part == name)
        .map(|(at, _)| at)
        .collect();
    assert_eq!(places.len(), 2, "the table and its index");
    bytes[places[nth] + 3] ^= 1;
    std::fs::write(&path, bytes).unwrap();
}

#[tokio::test]
async fn a_flipped_bit_in_the_name_of_a_channel_is_mended_or_told() {
    let name = 100 << 64;
    let mut told = Vec::new();
    for nth in 0..2 {
        let folder = Folder::new();
        let store = folder.open();
        for number in 90..=110 {
            post(&store, text(number << 64, "words")).await.unwrap();
        }
        let before = store.heads(&[channel(name)]).await.unwrap();
        store.close().await;
        flip_name(&folder, name, nth);
        let store = folder.open();
        // By the name in the table, or by what the index says.
        let after = store.heads(&[channel(name)]).await.unwrap();
        assert_eq!(after[0].position(), before[0].position());
        assert_eq!(post(&store, text(name, "next")).await.unwrap(), 2);
        told.push(store.damage());
        store.close().await;
        assert_eq!(folder.open().damage().is_some(), told[nth].is_some());
    }
    told.retain(Option::is_some);
    assert_eq!(told.len(), 1, "the index was built anew: {told:?}");
}

#[tokio::test]
async fn a_channel_whose_entry_is_lost_costs_no_other_message_of_its_batch() {
    let folder = Folder::new();
    let store = folder.open();
    for number in 1..=400 {
        post(&store, text(number << 64, "words")).await.unwrap();
    }
    store.close().await;
    folder.lose_pages(channel(10 << 64).uuid().as_bytes());
    let store = folder.open();
    assert!(store.damage().is_some());
    store.check().await.unwrap();
    let path = folder.dir.path().join("store.sqlite3");
    let other = rusqlite::Connection::open(path).unwrap();
    for round in 1..=2 {
        // All of them wait, so that those behind the first are one batch.
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let numbers = [390, 10, 391, 11, 10, 392];
        let posts = numbers.map(|number: u128| post(&store, text(number << 64, "next")));
        let posts = futures_util::future::join_all(posts);
        let let_go = async {
            eventually!(Duration::from_secs(4), {
                let queued = store.stats().queued;
                ensure!(queued == 6, "{queued} wait");
                Ok(())
            });
            other.execute_batch("ROLLBACK").unwrap();
        };
        let (outcomes, ()) = tokio::join!(posts, let_go);
        for (number, outcome) in numbers.into_iter().zip(outcomes) {
            match outcome {
                Ok(seq) => assert!(number >= 390 && seq == 1 + round, "{number} {seq}"),
                Err(StoreError::Damaged { .. }) => assert!(number < 390, "{number}"),
                Err(error) => panic!("{number}: {error}"),
            }
        }
        let stats = store.stats();
        assert_eq!(stats.failed, 3 * round);
        assert!(stats.commits <= 2 * round, "{} transactions", stats.commits);
        store.check().await.unwrap();
    }
    store.close().await;
}

#[tokio::test]
async fn a_channel_whose_newest_event_is_lost_goes_on() {
    let folder = Folder::new();
    let store = folder.open();
    for number in 1..=400 {
        let words = format!("{number} {}", "x".repeat(100));
        post(&store, text(number, words)).await.unwrap();
    }
    store.close().await;
    folder.lose_pages(b"\"text\":\"200 ");
    let store = folder.open();
    let posts = [1, 200, 400].map(|number| post(&store, text(number, "next")));
    let outcomes = futures_util::future::join_all(posts).await;
    assert!(
        outcomes.iter().all(|seq| matches!(seq, Ok(2))),
        "{outcomes:?}"
    );
    store.close().await;
}
