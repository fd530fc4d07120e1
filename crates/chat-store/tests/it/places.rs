//! Thousands of events, so that most have moved from the small table of places to the large one.

use chat_model::EventHead;
use chat_store::{Append, Appended, Log, PageLimit, PageRange, SqliteOptions, SqliteStore, Store};
use futures_util::future::join_all;
use uuid::Uuid;

use crate::posts::{channel, text};
use crate::support::Folder;

const CHANNELS: u128 = 3;
/// Events of each channel: together more than twice what the small table takes.
const EACH: u64 = 900;

fn options(folder: &Folder) -> SqliteOptions {
    SqliteOptions {
        // Fewer than there are channels, so that heads are looked up as well.
        cached_channels: 2,
        ..folder.options()
    }
}

fn with_id(number: u64) -> Append {
    let mut new = text(1, number.to_string());
    new.message.id = Some(Uuid::from_u128(number.into()));
    new
}

async fn fill(store: &SqliteStore) {
    for round in 1..=EACH / 10 {
        let others = (0..10).flat_map(|n| (2..=CHANNELS).map(move |c| text(c, format!("{n}"))));
        let first = (0..10).map(|n| with_id(round * 10 + n));
        for stored in join_all(others.chain(first).map(|new| store.append(new))).await {
            stored.unwrap();
        }
    }
}

async fn numbers(store: &SqliteStore, number: u128, range: PageRange, limit: usize) -> Vec<u64> {
    let page = store.page(channel(number), range, PageLimit::events(limit));
    let events = page.await.unwrap().events;
    let seq = |event| EventHead::parse(event).unwrap().seq;
    events.iter().map(|event| seq(event)).collect()
}

async fn check(store: &SqliteStore, first: u64) {
    for number in 1..=CHANNELS {
        let head = store.heads(&[channel(number)]).await.unwrap().remove(0);
        assert_eq!((head.first, head.head), (first, EACH));
        let all: Vec<u64> = (first..=EACH).collect();
        let mut read = Vec::new();
        while let Some(next) = {
            let after = PageRange::After(read.last().copied().unwrap_or(0));
            Some(numbers(store, number, after, 70).await).filter(|page| !page.is_empty())
        } {
            read.extend(next);
        }
        assert_eq!(read, all);
        for limit in [1, 400, 900] {
            let newest: Vec<u64> = (EACH + 1 - limit.min(EACH + 1 - first)..=EACH).collect();
            let page = numbers(store, number, PageRange::Newest, limit as usize).await;
            assert_eq!(page, newest);
        }
        let before = numbers(store, number, PageRange::Before(first + 20), 10).await;
        assert_eq!(before, (first + 10..first + 20).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn nothing_is_missing_while_places_move() {
    let folder = Folder::new();
    let store = SqliteStore::open(&options(&folder)).unwrap();
    fill(&store).await;
    check(&store, 1).await;
    for number in [10, EACH / 2, EACH + 9] {
        match store.append(with_id(number)).await.unwrap() {
            Appended::Repeated { event, .. } => assert!(event.is_some(), "{number}"),
            stored @ Appended::Stored { .. } => panic!("{number} came twice: {stored:?}"),
        }
    }
    store.close().await;

    let mut trimmed = options(&folder);
    trimmed.retention.max_per_channel = 100;
    let store = SqliteStore::open(&trimmed).unwrap();
    check(&store, 1).await;
    store.expire().await.unwrap();
    check(&store, EACH - 99).await;
    store.close().await;

    let store = SqliteStore::open(&options(&folder)).unwrap();
    store.new_epoch().await.unwrap();
    let heads = store.heads(&[channel(1), channel(3)]).await.unwrap();
    for head in heads {
        assert_eq!(head.epochs.last().unwrap().from, EACH + 1);
    }
    store.close().await;
}
