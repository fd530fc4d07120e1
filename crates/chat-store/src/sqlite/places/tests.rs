//! Where the boundary between both tables lies is chosen here, not by how posts fell into batches.

use chat_model::EventHead;
use uuid::Uuid;

use super::*;
use crate::damage::Damage;
use crate::sqlite::bench::{Tables, channel, text};
use crate::sqlite::epochs::begin_epoch;
use crate::sqlite::queries;
use crate::sqlite::retention::Sweeper;
use crate::{Append, Appended, PageLimit, PageRange, StoreError};
use crate::{KeyMemory, Retention};

struct Bench {
    tables: Tables,
}

impl Bench {
    /// Two channels with ten events each, the last four of them new.
    fn new() -> Self {
        // It remembers two channels at most.
        let mut bench = Self {
            tables: Tables::new(2),
        };
        bench.store(&both(6));
        settle(&bench.tables.connection, &mut bench.tables.memory).unwrap();
        bench.store(&both(4));
        assert_eq!(bench.counts(), [20, 12, 8]);
        bench
    }

    fn store(&mut self, messages: &[Append]) -> Vec<Result<Appended, StoreError>> {
        let limits = Sweeper::new(&Retention::default(), &KeyMemory::default()).limits();
        self.tables.store(messages, limits, 1)
    }

    /// Rows of the log, of the large table and of the small one.
    fn counts(&self) -> [u64; 3] {
        ["log", "places", "new_places"].map(|table| {
            let sql = format!("SELECT count(*) FROM {table}");
            self.tables
                .connection
                .query_row(&sql, [], |row| row.get(0))
                .unwrap()
        })
    }

    fn page(&self, range: PageRange, limit: PageLimit) -> Vec<u64> {
        let page = queries::page(&self.tables.connection, channel(1), range, limit).unwrap();
        let seq = |event: &Bytes| EventHead::parse(event).unwrap().seq;
        page.events.iter().map(seq).collect()
    }

    fn expire(&mut self, retention: Retention, expiry: u64) {
        let mut sweeper = Sweeper::new(&retention, &KeyMemory::default());
        while self.tables.step(&mut sweeper, expiry).unwrap().more {}
    }
}

fn both(each: usize) -> Vec<Append> {
    (0..each).flat_map(|_| [text(1), text(2)]).collect()
}

#[test]
fn pages_go_on_from_one_table_to_the_other() {
    let bench = Bench::new();
    for after in 0..=10 {
        for events in 1..=10 {
            let page = bench.page(PageRange::After(after), PageLimit::events(events));
            let expected: Vec<u64> = (after + 1..=10).take(events).collect();
            assert_eq!(page, expected, "{events} after {after}");

            let before = after + 1;
            let page = bench.page(PageRange::Before(before), PageLimit::events(events));
            let first = before.saturating_sub(events as u64).max(1);
            let expected: Vec<u64> = (first..before).collect();
            assert_eq!(page, expected, "{events} before {before}");
        }
    }
    let newest = bench.page(PageRange::Newest, PageLimit::events(7));
    assert_eq!(newest, [4, 5, 6, 7, 8, 9, 10]);
    // A page that is full by its bytes takes nothing from the other table either.
    let one = PageLimit {
        events: 10,
        bytes: 1,
    };
    assert_eq!(bench.page(PageRange::After(5), one), [6]);
    assert_eq!(bench.page(PageRange::Before(8), one), [7]);
}

#[test]
fn what_is_new_is_found_by_the_next_process() {
    let mut bench = Bench::new();
    bench.tables.memory = Memory::load(&bench.tables.connection, 2).unwrap();
    assert_eq!(bench.tables.memory.new_places, 8);
    for stored in bench.store(&[text(1), text(2)]) {
        assert!(matches!(stored, Ok(Appended::Stored { seq: 11, .. })));
    }
    settle(&bench.tables.connection, &mut bench.tables.memory).unwrap();
    assert_eq!(bench.counts(), [22, 22, 0]);
}

#[test]
fn a_log_that_fell_out_of_memory_goes_on_within_its_batch() {
    let mut bench = Bench::new();
    let messages: Vec<Append> = (0..3).flat_map(|_| (1..=5).map(text)).collect();
    let outcomes = bench.store(&messages);
    for (outcome, seq) in outcomes[10..].iter().zip([13, 13, 3, 3, 3]) {
        assert!(matches!(outcome, Ok(Appended::Stored { seq: s, .. }) if *s == seq));
    }
}

#[test]
fn an_event_that_comes_twice_is_found_in_its_batch_and_in_both_tables() {
    let mut bench = Bench::new();
    let mut keyed = text(1);
    keyed.message.id = Some(Uuid::from_u128(7));
    let mut first = bench.store(&[keyed.clone(), keyed.clone()]);
    let Some(Ok(Appended::Stored { event: stored, .. })) = first.first() else {
        panic!("not stored: {first:?}");
    };
    let stored = stored.clone();
    let again = first.remove(1);
    let later = bench.store(&[keyed.clone()]).remove(0);
    settle(&bench.tables.connection, &mut bench.tables.memory).unwrap();
    let settled = bench.store(&[keyed]).remove(0);
    for outcome in [again, later, settled] {
        match outcome {
            Ok(Appended::Repeated { event, seq, .. }) => {
                assert_eq!((event.as_ref(), seq), (Some(&stored), 11));
            }
            other => panic!("not known: {other:?}"),
        }
    }
}

#[test]
fn retention_leaves_no_place_behind() {
    let mut bench = Bench::new();
    let retention = Retention {
        max_per_channel: 2,
        ..Retention::default()
    };
    bench.expire(retention, 1);
    assert_eq!(bench.counts(), [4, 0, 4]);
    assert_eq!(bench.page(PageRange::Newest, PageLimit::MAX), [9, 10]);

    bench.store(&both(1));
    let retention = Retention::default();
    let late = u64::try_from(retention.max_age.as_millis()).unwrap() + 1;
    bench.expire(retention, late);
    assert_eq!(bench.counts(), [0, 0, 0]);
    for stored in bench.store(&both(1)) {
        assert!(matches!(stored, Ok(Appended::Stored { seq: 12, .. })));
    }
}

#[test]
fn an_epoch_begins_after_what_is_new() {
    let mut bench = Bench::new();
    begin_epoch(&bench.tables.connection, &mut bench.tables.memory, 5_000).unwrap();
    let both = [channel(1), channel(2)];
    let heads = queries::heads(&bench.tables.connection, &both, &Damage::default()).unwrap();
    for head in heads {
        assert_eq!(head.epochs.last().unwrap().from, 11);
    }
}
