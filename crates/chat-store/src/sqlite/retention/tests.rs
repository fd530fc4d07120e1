use chat_model::Epoch;
use uuid::Uuid;

use super::*;
use crate::sqlite::bench::{Tables, channel, text};
use crate::sqlite::queries;
use crate::{Append, Appended};

const HOUR: u64 = 3600 * 1000;

struct Bench {
    tables: Tables,
    sweeper: Sweeper,
}

impl Bench {
    /// Events are kept for an hour, empty channels for another one, keys for a day.
    fn new() -> Self {
        let retention = Retention {
            max_age: std::time::Duration::from_millis(HOUR),
            ..Retention::default()
        };
        let mut sweeper = Sweeper::new(&retention, &KeyMemory::default());
        sweeper.empty_for = HOUR;
        Self {
            tables: Tables::new(10),
            sweeper,
        }
    }

    fn store(&mut self, messages: &[Append], expiry: u64) -> Vec<Appended> {
        let limits = self.sweeper.limits();
        let outcomes = self.tables.store(messages, limits, expiry);
        outcomes.into_iter().map(Result::unwrap).collect()
    }

    /// Everything that is to be done at this time; how many channels were forgotten.
    fn expire(&mut self, expiry: u64) -> u64 {
        let mut forgotten = 0;
        loop {
            let progress = self.tables.step(&mut self.sweeper, expiry).unwrap();
            forgotten += progress.forgotten;
            if !progress.more {
                return forgotten;
            }
        }
    }

    fn epoch(&self, number: u128) -> Epoch {
        queries::heads(
            &self.tables.connection,
            &[channel(number)],
            &crate::damage::Damage::default(),
        )
        .unwrap()[0]
            .epoch
    }
}

#[test]
fn channel_whose_senders_keys_are_remembered_is_not_forgotten() {
    let mut bench = Bench::new();
    let mut keyed = text(1);
    keyed.message.id = Some(Uuid::from_u128(7));
    bench.store(&[keyed.clone(), text(2)], 0);
    assert_eq!(bench.expire(HOUR), 0);
    assert_eq!(bench.expire(3 * HOUR), 1);
    let again = bench.store(&[keyed], 3 * HOUR).remove(0);
    assert!(matches!(
        again,
        Appended::Repeated {
            event: None,
            seq: 1,
            ..
        }
    ));
    assert_eq!(bench.expire(25 * HOUR), 1);
    assert_eq!(bench.epoch(1), Epoch::ZERO);
}

#[test]
fn of_too_many_empty_channels_the_longest_empty_are_forgotten() {
    let mut bench = Bench::new();
    bench.sweeper.most_empty = 5;
    for number in 1..=8 {
        bench.store(&[text(number)], u64::try_from(number).unwrap());
        bench.expire(HOUR + u64::try_from(number).unwrap());
    }
    let known = (1..=8).filter(|&number| bench.epoch(number) != Epoch::ZERO);
    assert_eq!(known.collect::<Vec<_>>(), [4, 5, 6, 7, 8]);
    // One that is used again is not what was noted.
    bench.store(&[text(4)], HOUR + 10);
    bench.store(&[text(9)], HOUR + 10);
    assert_eq!(bench.expire(2 * HOUR + 10), 4);
    let known = (1..=9).filter(|&number| bench.epoch(number) != Epoch::ZERO);
    assert_eq!(known.collect::<Vec<_>>(), [4, 9]);
}

#[test]
fn a_channel_that_is_emptied_again_and_again_pushes_out_no_other() {
    let mut bench = Bench::new();
    bench.sweeper.most_empty = 5;
    bench.sweeper.empty_for = 100 * HOUR;
    bench.store(&[text(1), text(2)], 0);
    bench.expire(HOUR);
    for round in 2..20 {
        bench.store(&[text(3), text(4)], round * HOUR);
        assert_eq!(bench.expire((round + 1) * HOUR), 0, "in round {round}");
    }
    let entries = "SELECT count(*) FROM empty_channels";
    let entries: u64 = bench
        .tables
        .connection
        .query_row(entries, [], |row| row.get(0))
        .unwrap();
    assert_eq!(bench.tables.memory.empty_entries, entries);
    assert!(entries <= 7, "{entries} entries");
    // As many as there are, and those that are too many.
    for number in 5..=8 {
        bench.store(&[text(number)], 21 * HOUR);
    }
    assert_eq!(bench.expire(22 * HOUR), 3);
    let known = (1..=8).filter(|&number| bench.epoch(number) != Epoch::ZERO);
    assert_eq!(known.collect::<Vec<_>>().len(), 5);
}

#[test]
fn a_channel_whose_newest_events_are_damaged_is_held_to_its_bytes() {
    let mut bench = Bench::new();
    bench.store(&vec![text(1); 20], 0);
    let load =
        |bench: &Bench| crate::sqlite::memory::load_log(&bench.tables.connection, channel(1));
    let before = load(&bench).unwrap().unwrap();
    let damage = "UPDATE log SET bytes_to = 'x', at = 'y' WHERE pos > 17";
    assert_eq!(bench.tables.connection.execute(damage, []).unwrap(), 3);
    let after = load(&bench).unwrap().unwrap();
    assert_eq!((after.head, after.at), (before.head, before.at));
    let each = before.bytes / 20;
    assert!(
        after.bytes > 17 * each && after.bytes <= before.bytes,
        "{after:?}"
    );
}

#[test]
fn epochs_grow_however_often_a_channel_is_forgotten() {
    let mut bench = Bench::new();
    bench.sweeper.most_empty = 0;
    let mut last = Epoch::ZERO;
    for round in 1..20 {
        bench.store(&[text(1), text(2)], round * HOUR);
        let epoch = bench.epoch(1);
        assert!(epoch > last, "in round {round}");
        last = epoch.max(bench.epoch(2));
        assert_eq!(bench.expire((round + 1) * HOUR), 2);
        if round % 3 == 0 {
            bench.tables.memory = Memory::load(&bench.tables.connection, 10).unwrap();
        }
    }
}

fn bounded(events: u64) -> Bench {
    let mut bench = Bench::new();
    bench.sweeper.limits = ChannelLimits::new(&Retention {
        max_per_channel: events,
        ..Retention::default()
    });
    bench
}

fn kept(bench: &Bench, number: u128) -> u64 {
    let channel = channel(number).uuid();
    let count = "SELECT count(*) FROM log JOIN channels USING (channel_no) WHERE uuid = ?1";
    let row = bench
        .tables
        .connection
        .query_row(count, [channel.as_bytes()], |row| row.get(0));
    row.unwrap()
}

#[test]
fn channel_is_held_to_its_bound_while_others_expire_at_every_step() {
    let mut bench = bounded(5);
    bench.store(&vec![text(1); 30], 2 * HOUR);
    bench.expire(0);
    for step in 0..9 {
        bench.store(&vec![text(1); 10], 2 * HOUR);
        bench.sweeper.note_over(channel(1));
        // Those that came before are newer: what expires is put in front of them.
        let moved = "UPDATE log SET kept_at = 0 WHERE pos = (SELECT min(pos) FROM log)";
        bench.tables.connection.execute(moved, []).unwrap();
        let progress = bench.tables.step(&mut bench.sweeper, HOUR).unwrap();
        assert!(progress.removed > 0, "in step {step}");
    }
    assert!(kept(&bench, 1) < 30, "{} are kept", kept(&bench, 1));
}

#[test]
fn channel_whose_entry_is_damaged_keeps_no_other_from_its_bound() {
    let mut bench = bounded(5);
    bench.store(&vec![text(1); 20], HOUR);
    bench.store(&vec![text(2); 20], HOUR);
    let damage = "UPDATE epochs SET epoch = -1 WHERE channel_no = 1";
    assert_eq!(bench.tables.connection.execute(damage, []).unwrap(), 1);
    bench.tables.memory = Memory::load(&bench.tables.connection, 10).unwrap();
    bench.sweeper.note_over(channel(1));
    bench.sweeper.sweep_all();
    bench.expire(HOUR);
    assert_eq!((kept(&bench, 1), kept(&bench, 2)), (20, 5));
}

#[test]
fn channel_whose_entry_is_on_a_lost_page_keeps_no_other_from_its_bound() {
    let mut bench = bounded(5);
    for number in 1..=400 {
        let events = if matches!(number, 1 | 400) { 20 } else { 1 };
        bench.store(&vec![text(number); events], HOUR);
    }
    bench.tables.lose_pages(channel(1).uuid().as_bytes());
    bench.sweeper.note_over(channel(1));
    bench.expire(HOUR);
    let kept = |channel_no: i64| -> u64 {
        let count = "SELECT count(*) FROM log WHERE channel_no = ?1";
        let row = bench
            .tables
            .connection
            .query_row(count, [channel_no], |row| row.get(0));
        row.unwrap()
    };
    assert_eq!((kept(1), kept(400)), (20, 5));
    assert!(!bench.sweeper.has_work(), "it is not tried again and again");
}
