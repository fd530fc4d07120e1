//! Any sequence of operations leaves the store as a model in memory says.

use std::collections::HashMap;
use std::time::Duration;

use chat_model::{Epoch, Seq};
use chat_store::{
    Append, Appended, IdempotencyKey, Log, Outbox, PageLimit, PageRange, Position, SqliteOptions,
    SqliteStore, Store, StoreError,
};
use clock::{Clock, Timestamp};
use futures_util::future::join_all;
use proptest::prelude::*;

use crate::posts::{channel, text};
use crate::support::Folder;

const KEPT: u64 = 8;
/// About five of the larger messages.
const KEPT_BYTES: u64 = 3_000;
/// What an event counts for besides its own bytes.
const EVENT_BYTES: u64 = 64;
const HOUR: u64 = 3600 * 1000;
const DAY: u64 = 24 * HOUR;
const MAX_AGE: u64 = 30 * DAY;
/// How long an empty log is remembered.
const EMPTY_FOR: u64 = 30 * DAY;

#[derive(Debug, Clone)]
enum Operation {
    /// Posts that arrive together.
    Post(Vec<Post>),
    Pass(u64),
    /// The system's clock is set by this many hours.
    Jump(i64),
    Expire,
    Reopen,
    NewEpoch,
    Publish,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Post {
    channel: u8,
    words: u8,
    id: Option<u8>,
    key: Option<u8>,
}

impl Post {
    /// What it is known again by: its id, or else its key.
    fn key_of(&self) -> Option<(u8, bool, u8)> {
        let id = self.id.map(|id| (self.channel, false, id));
        id.or_else(|| Some((self.channel, true, self.key?)))
    }
}

fn post() -> impl Strategy<Value = Post> {
    let rarely = |up_to: u8| prop_oneof![2 => Just(None), 1 => (0..up_to).prop_map(Some)];
    (0..3_u8, 0..2_u8, rarely(4), rarely(4)).prop_map(|(channel, words, id, key)| Post {
        channel,
        words,
        id,
        key,
    })
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        8 => prop::collection::vec(post(), 1..8).prop_map(Operation::Post),
        2 => (1..30_u64).prop_map(|hours| Operation::Pass(hours * HOUR)),
        1 => (1..40_u64).prop_map(|days| Operation::Pass(days * DAY)),
        1 => Just(Operation::Pass(MAX_AGE)),
        1 => (-100..100_i64).prop_map(Operation::Jump),
        2 => Just(Operation::Expire),
        2 => Just(Operation::Reopen),
        1 => Just(Operation::NewEpoch),
        1 => Just(Operation::Publish),
    ]
}

/// A remembered id or key: what was posted, where it went, when.
type Remembered = (Post, Seq, u64);

#[derive(Default)]
struct Model {
    /// Each event with the moment at which it was kept.
    logs: HashMap<u8, Vec<(bytes::Bytes, u64)>>,
    keys: HashMap<(u8, bool, u8), Remembered>,
    epochs: HashMap<u8, Vec<(Epoch, Seq)>>,
    /// The latest epochs of logs that were forgotten.
    forgotten: HashMap<u8, Epoch>,
    /// When each log was first known to be empty.
    empty: HashMap<u8, u64>,
    /// Lowest numbers that were seen to be kept.
    firsts: HashMap<u8, Seq>,
    outbox: Vec<(u8, Seq)>,
    now: u64,
}

impl Model {
    /// What an append must answer: where it was stored before, or that it is refused, or new.
    fn expected(&self, post: &Post) -> Result<Option<Seq>, ()> {
        let Some(key) = post.key_of() else {
            return Ok(None);
        };
        let Some((before, seq, at)) = self.keys.get(&key) else {
            return Ok(None);
        };
        if at + DAY <= self.now {
            return Ok(None);
        }
        // The key is no part of the message.
        let same = (before.words, before.id) == (post.words, post.id);
        if same { Ok(Some(*seq)) } else { Err(()) }
    }

    fn check(&mut self, post: &Post, outcome: Result<Appended, StoreError>) {
        match (self.expected(post), outcome) {
            (Err(()), Err(StoreError::KeyReused { .. })) => {}
            (
                Ok(Some(seq)),
                Ok(Appended::Repeated {
                    event, seq: found, ..
                }),
            ) => {
                assert_eq!(found, seq);
                let log = &self.logs[&post.channel];
                match event {
                    Some(event) => assert_eq!(event, log[seq as usize - 1].0),
                    None => assert!(seq < self.expired_to(post.channel)),
                }
            }
            (
                Ok(None),
                Ok(Appended::Stored {
                    event, seq, epoch, ..
                }),
            ) => {
                if seq == 1 && self.logs.contains_key(&post.channel) {
                    self.forget(post.channel);
                }
                self.empty.remove(&post.channel);
                let log = self.logs.entry(post.channel).or_default();
                log.push((event, self.now));
                assert_eq!(seq, log.len() as u64);
                let epochs = self.epochs.entry(post.channel).or_default();
                if epochs.is_empty() {
                    epochs.push((epoch, 1));
                    assert!(self.forgotten.get(&post.channel) < Some(&epoch));
                }
                assert_eq!(epochs.last().unwrap().0, epoch);
                self.outbox.push((post.channel, seq));
                if let Some(key) = post.key_of() {
                    let known = (post.clone(), seq, self.now);
                    self.keys.insert(key, known);
                }
            }
            (expected, outcome) => panic!("expected {expected:?}, got {outcome:?}"),
        }
    }

    /// The lowest number that must be kept now; what lies below may be gone already.
    fn expired_to(&self, channel: u8) -> Seq {
        let Some(log) = self.logs.get(&channel) else {
            return 1;
        };
        let by_age = log
            .iter()
            .filter(|(_, at)| at + MAX_AGE <= self.now)
            .count() as u64;
        let by_count = (log.len() as u64).saturating_sub(KEPT);
        let mut bytes = 0;
        let fits = log.iter().rev().take_while(|(event, _)| {
            bytes += event.len() as u64 + EVENT_BYTES;
            bytes <= KEPT_BYTES
        });
        let by_bytes = (log.len() - fits.count()) as u64;
        by_age.max(by_count).max(by_bytes) + 1
    }

    /// Whether a log may have been forgotten.
    fn may_be_gone(&self, channel: u8) -> bool {
        let newest = self.logs[&channel].last();
        newest.is_some_and(|(_, at)| at + MAX_AGE + EMPTY_FOR <= self.now)
    }

    /// A log turned out to be forgotten.
    fn forget(&mut self, channel: u8) {
        assert!(self.may_be_gone(channel), "forgotten too soon");
        self.logs.remove(&channel);
        self.firsts.remove(&channel);
        self.empty.remove(&channel);
        let epochs = self.epochs.remove(&channel).unwrap();
        let last = epochs.last().unwrap().0;
        let latest = self.forgotten.entry(channel).or_insert(last);
        *latest = last.max(*latest);
        self.outbox.retain(|(other, _)| *other != channel);
        self.keys.retain(|(other, ..), _| *other != channel);
    }
}

fn append(post: &Post) -> Append {
    let words = post
        .words
        .to_string()
        .repeat(1 + 400 * usize::from(post.words));
    let mut new = text(post.channel.into(), words);
    new.message.id = post.id.map(|id| uuid::Uuid::from_u128(id.into()));
    new.key = post.key.map(|key| IdempotencyKey::new(&[key]));
    new
}

async fn compare(store: &SqliteStore, model: &mut Model, expired: bool) {
    for number in 0..3 {
        let range = PageRange::After(0);
        let page = store.page(channel(number.into()), range, PageLimit::MAX);
        let page = page.await.unwrap();
        if page.head.epoch == Epoch::ZERO && model.logs.contains_key(&number) {
            model.forget(number);
        }
        let log = model.logs.get(&number).map_or(&[][..], Vec::as_slice);
        let epochs: Vec<_> = page.head.epochs.iter().map(|e| (e.epoch, e.from)).collect();
        let known = model.epochs.get(&number).cloned().unwrap_or_default();
        assert_eq!(epochs, known);
        assert_eq!(page.head.head, log.len() as u64);
        let first = page.head.first;
        let must = model.expired_to(number);
        assert!(first <= must, "{first} to {must} are missing");
        assert!(!expired || first == must, "{first} to {must} are left");
        if expired && page.head.head > 0 && first > page.head.head {
            let since = *model.empty.entry(number).or_insert(model.now);
            assert!(since + EMPTY_FOR > model.now, "it is not forgotten");
        }
        let log = model.logs.get(&number).map_or(&[][..], Vec::as_slice);
        let before = model.firsts.insert(number, first);
        assert!(before.is_none_or(|before| before <= first));
        let kept: Vec<_> = log[first as usize - 1..].iter().map(|(e, _)| e).collect();
        assert_eq!(page.events.iter().collect::<Vec<_>>(), kept);
    }
    let outbox = store.unpublished(Position::START, PageLimit::MAX).await;
    let kept: Vec<_> = model
        .outbox
        .iter()
        .filter(|(channel, seq)| *seq >= model.firsts[channel])
        .map(|(channel, seq)| &model.logs[channel][*seq as usize - 1].0)
        .collect();
    let outbox = outbox.unwrap();
    // Retention may have removed more between the two questions, from the front.
    let outbox: Vec<_> = outbox.iter().map(|entry| &entry.event).collect();
    if expired {
        assert_eq!(outbox, kept);
    } else {
        let mut rest = kept.iter();
        assert!(outbox.iter().all(|event| rest.any(|kept| kept == event)));
    }
}

/// What a closed store has counted is what it has.
fn compare_sizes(folder: &Folder) {
    let database = rusqlite::Connection::open(folder.dir.path().join("store.sqlite3")).unwrap();
    let number = |sql: &str| -> u64 { database.query_row(sql, [], |row| row.get(0)).unwrap() };
    assert_eq!(
        number("SELECT log_bytes FROM state"),
        number("SELECT coalesce(sum(length(event) + 64), 0) FROM log")
    );
    // In each channel, from what is kept of it to its newest event.
    let wrong = number(
        "SELECT count(*) FROM channels WHERE
            (SELECT sum(length(event) + 64) FROM log WHERE log.channel_no = channels.channel_no)
            <> (SELECT max(bytes_to) FROM log WHERE log.channel_no = channels.channel_no)
                - floor_bytes",
    );
    assert_eq!(wrong, 0);
    let of_no_channel = |table: &str| {
        number(&format!(
            "SELECT count(*) FROM {table} WHERE channel_no NOT IN (SELECT channel_no FROM channels)"
        ))
    };
    for table in ["log", "epochs", "places", "new_places", "sender_keys"] {
        assert_eq!(of_no_channel(table), 0, "{table}");
    }
}

async fn run(operations: Vec<Operation>) {
    let folder = Folder::new();
    let mut options: SqliteOptions = folder.options();
    options.retention.max_per_channel = KEPT;
    options.retention.max_bytes_per_channel = KEPT_BYTES;
    options.cached_channels = 2;
    let mut store = SqliteStore::open(&options).unwrap();
    let mut model = Model::default();
    for operation in operations {
        let expired = matches!(operation, Operation::Expire);
        match operation {
            Operation::Post(posts) => {
                let appends = posts.iter().map(|post| store.append(append(post)));
                let outcomes = join_all(appends).await;
                for (post, outcome) in posts.iter().zip(outcomes) {
                    model.check(post, outcome);
                }
            }
            Operation::Pass(milliseconds) => {
                folder.clock.advance(Duration::from_millis(milliseconds));
                model.now += milliseconds;
            }
            Operation::Jump(hours) => {
                let now = folder.clock.now().as_millis();
                folder
                    .clock
                    .set(Timestamp::from_millis(now + hours * HOUR as i64));
            }
            Operation::Expire => {
                store.expire().await.unwrap();
            }
            Operation::Reopen => {
                let mark = store.published_to().await.unwrap();
                store.close().await;
                compare_sizes(&folder);
                store = SqliteStore::open(&options).unwrap();
                assert_eq!(store.published_to().await.unwrap(), mark);
            }
            Operation::NewEpoch => {
                store.new_epoch().await.unwrap();
                let numbers: Vec<u8> = model.epochs.keys().copied().collect();
                for number in numbers {
                    let head = store.heads(&[channel(number.into())]).await.unwrap()[0].clone();
                    if head.epoch == Epoch::ZERO {
                        model.forget(number);
                        continue;
                    }
                    let epochs = model.epochs.get_mut(&number).unwrap();
                    assert!(head.epoch > epochs.last().unwrap().0);
                    epochs.push((head.epoch, head.head + 1));
                }
            }
            Operation::Publish => {
                let rest = store.unpublished(Position::START, PageLimit::MAX).await;
                if let Some(last) = rest.unwrap().last() {
                    store.mark_published(last.position);
                }
            }
        }
        compare(&store, &mut model, expired).await;
    }
    store.close().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn store_does_as_the_model_does(operations in prop::collection::vec(operation(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(run(operations));
    }
}
