mod epochs;

use chat_model::{Epoch, EpochStart};

use super::*;
use crate::hub::example_log::{self, channel, head};
use crate::hub::tail::{Heard, TailLimits};

fn entry(seq: Seq) -> Arc<Entry> {
    Arc::new(example_log::entry(seq, 0))
}

const LIMITS: TailLimits = TailLimits {
    ring_events: 10,
    ring_bytes: 1 << 20,
};

/// A tail that knows the log up to `seq`, with room for about two waiting events.
fn tail_at(seq: Seq) -> Tail {
    tail_with(&head(seq))
}

fn tail_with(head: &Head) -> Tail {
    let limits = TailLimits {
        ring_events: 10,
        ring_bytes: 2 * entry(1).cost(),
    };
    let mut tail = Tail::new(limits, 0);
    let ask = tail.ask();
    tail.answer(ask, head);
    tail
}

/// The only gap that is reported: from, to, why, and where the log continues.
fn gap(step: Step) -> (Option<Seq>, Seq, GapReason, Position) {
    match step {
        Step::Items(items) => match &items[..] {
            [Item::Gap(gap, position)] => (gap.from, gap.to, gap.reason, *position),
            _ => panic!("one gap: {items:?}"),
        },
        other => panic!("a gap is due: {other:?}"),
    }
}

#[test]
fn nobody_is_ready_before_the_tail_has_what_the_store_had() {
    let mut tail = tail_at(3);
    let mut resumed = Reader::new(channel(), Start::After(head(3).position()), tail.mark());
    let mut live = Reader::new(channel(), Start::Live, tail.mark());
    let ask = tail.ask();
    tail.answer(ask, &head(5));
    assert!(tail.is_verified());
    for reader in [&mut resumed, &mut live] {
        assert!(matches!(reader.step(&tail, 1_000), Step::Waits));
        assert!(!reader.is_ready(&tail));
    }
    tail.fill(&[entry(4), entry(5)], &head(5));
    // The listener that reconnected must get both; the one that came live begins after them.
    let Step::Items(items) = resumed.step(&tail, 10_000) else {
        panic!("two events are there")
    };
    assert_eq!(items.len(), 2);
    assert!(matches!(live.step(&tail, 1_000), Step::Items(items) if items.is_empty()));
    assert_eq!(live.position(), Some(head(5).position()));
    assert!(resumed.is_ready(&tail) && live.is_ready(&tail));
}

#[test]
fn an_empty_channel_is_asked_about_once_for_all() {
    let tail = tail_with(&Head {
        epoch: Epoch::ZERO,
        epochs: Vec::new(),
        ..head(0)
    });
    for start in [Start::Live, Start::After(Position::default())] {
        let mut reader = Reader::new(channel(), start, tail.mark());
        if reader.position().is_none() {
            assert!(matches!(reader.step(&tail, 0), Step::Items(items) if items.is_empty()));
        }
        assert!(matches!(reader.step(&tail, 1_000), Step::Waits));
        assert!(reader.is_ready(&tail));
    }
}

#[test]
fn damaged_numbers_are_one_gap_and_the_stream_goes_on_behind_it() {
    let damaged = |seq| Arc::new(Entry::damaged(Position::new(head(5).epoch, seq)));
    let entries = vec![entry(1), damaged(2), damaged(3), entry(4), damaged(5)];
    let check = |items: &[Item]| {
        let [Item::Event(first), two, Item::Event(four), five] = items else {
            panic!("two events and two gaps: {items:?}")
        };
        assert_eq!((first.seq(), four.seq()), (1, 4));
        for (item, from, to) in [(two, 2, 3), (five, 5, 5)] {
            let Item::Gap(gap, at) = item else {
                panic!("a gap is due: {item:?}")
            };
            assert_eq!((gap.from, gap.to, at.seq), (Some(from), to, to));
            assert_eq!(gap.reason, GapReason::Damaged);
        }
    };
    let start = Start::After(Position::new(head(5).epoch, 0));

    // From the ring, which history has filled.
    let mut tail = Tail::new(LIMITS, 0);
    let ask = tail.ask();
    tail.answer(ask, &head(0));
    let ask = tail.ask();
    tail.answer(ask, &head(5));
    assert!(tail.fill(&entries, &head(5)).reaches_on);
    let mut reader = Reader::new(channel(), start, tail.mark());
    let Step::Items(items) = reader.step(&tail, 10_000) else {
        panic!("all of them are there")
    };
    check(&items);
    assert!(reader.is_ready(&tail));

    // And from a page of history.
    let mut reader = Reader::new(channel(), start, tail.mark());
    let page = Page {
        after: 0,
        head: head(5),
        entries,
    };
    check(&reader.take_page(&page, 10_000, tail.mark()));
    assert!(reader.is_ready(&tail));
}

#[test]
fn what_was_forgotten_for_want_of_room_is_asked_for() {
    let mut tail = tail_at(0);
    let before = tail.ask();
    for seq in 2..=9 {
        assert_eq!(tail.hear(entry(seq)), Heard::Waits);
    }
    assert!(tail.needs_head());
    // The answer to an earlier request may not include it yet.
    tail.answer(before, &head(1));
    assert!(tail.needs_head());
    let after = tail.ask();
    tail.answer(after, &head(9));
    assert!(!tail.needs_head());
    assert_eq!(tail.hole().map(|known| known.seq), Some(0));
}

#[test]
fn whoever_comes_after_a_forged_event_was_found_out_gets_the_true_one() {
    let forged = |seq| Arc::new(example_log::forged(seq));
    let joins = |tail: &Tail, after: Seq| {
        let start = Start::After(head(after).position());
        let mut reader = Reader::new(channel(), start, tail.mark());
        match reader.step(tail, 0) {
            Step::Items(items) => match &items[..] {
                [Item::Event(entry)] => Some(entry.line()),
                other => panic!("one event: {other:?}"),
            },
            Step::NeedsPage(_) => None,
            other => panic!("{other:?}"),
        }
    };
    let mut tail = tail_at(3);
    assert_eq!(tail.hear(forged(4)), Heard::Appended);
    assert_eq!(joins(&tail, 3), Some(forged(4).line()));
    assert_eq!(tail.hear(entry(4)), Heard::Dropped);
    assert_eq!(tail.take_contradictions(), 1);
    assert_eq!(joins(&tail, 3), None, "history knows");
    tail.extend_back(&[entry(4)]);
    assert_eq!(joins(&tail, 3), Some(entry(4).line()));
    assert_eq!(tail.hear(entry(4)), Heard::Dropped);
    assert_eq!(tail.take_contradictions(), 0, "the same once more");

    // Pages show it too.
    assert_eq!(tail.hear(forged(5)), Heard::Appended);
    tail.extend_back(&[entry(4), entry(5)]);
    assert_eq!(tail.take_contradictions(), 1);
    assert_eq!(joins(&tail, 4), Some(entry(5).line()));

    // A waiting event is trusted only if nothing contradicts it.
    assert_eq!(tail.hear(forged(7)), Heard::Waits);
    assert_eq!(tail.hear(entry(7)), Heard::Waits);
    assert_eq!(tail.take_contradictions(), 1);
    assert_eq!(tail.hear(entry(6)), Heard::Appended);
    assert_eq!(tail.known().unwrap().seq, 6);
    assert!(tail.needs_head());
}

#[test]
fn a_node_that_lags_sends_nothing_below_the_floor() {
    let mut tail = tail_at(3);
    let mut reader = Reader::new(channel(), Start::After(head(5).position()), tail.mark());
    // An answer from before the cursor was known proves nothing.
    assert!(matches!(reader.step(&tail, 1_000), Step::NeedsHead));
    let ask = tail.ask();
    tail.answer(ask, &head(6));
    assert!(matches!(reader.step(&tail, 1_000), Step::Waits));
    tail.fill(&[entry(4), entry(5), entry(6)], &head(6));
    let Step::Items(items) = reader.step(&tail, 10_000) else {
        panic!("6 is there")
    };
    assert!(matches!(&items[..], [Item::Event(entry)] if entry.seq() == 6));
}
