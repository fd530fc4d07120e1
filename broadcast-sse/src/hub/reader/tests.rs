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

/// A tail that stands at `seq`, with room for about two events that wait.
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

/// The one gap that is told: from, to, why, and where the log goes on.
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
    // The one who came back is owed the two; the one who came live begins behind them.
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

    // Out of the ring, which history has filled.
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
    // An answer to an earlier question may not know of it yet.
    tail.answer(before, &head(1));
    assert!(tail.needs_head());
    let after = tail.ask();
    tail.answer(after, &head(9));
    assert!(!tail.needs_head());
    assert_eq!(tail.hole().map(|known| known.seq), Some(0));
}

#[test]
fn only_a_question_asked_later_proves_a_cut_within_an_epoch() {
    let mut tail = tail_at(3);
    let asked_before = tail.ask();
    assert_eq!(tail.hear(entry(4)), Heard::Appended);
    let mut reader = Reader::new(channel(), Start::After(head(3).position()), tail.mark());
    assert!(matches!(reader.step(&tail, 1_000), Step::Items(items) if items.len() == 1));

    // The question was older than event 4: its answer is merely old.
    tail.answer(asked_before, &head(3));
    assert_eq!(tail.known(), Some(head(4).position()));
    assert!(matches!(reader.step(&tail, 1_000), Step::Waits));

    // This one was asked when 4 was known: the store never had it, or has it no more.
    let asked_after = tail.ask();
    tail.answer(asked_after, &head(3));
    assert_eq!(tail.known(), Some(head(3).position()));
    let cut = (Some(4), 4, GapReason::Epoch, head(3).position());
    assert_eq!(gap(reader.step(&tail, 1_000)), cut);

    // The next event with that number is the one that counts.
    assert_eq!(tail.hear(entry(4)), Heard::Appended);
    assert!(matches!(reader.step(&tail, 1_000), Step::Items(items) if items.len() == 1));
}

#[test]
fn only_the_stores_own_words_show_that_it_went_back() {
    let mut tail = tail_at(3);
    assert_eq!(tail.hear(entry(4)), Heard::Appended);
    let asked = tail.ask();
    assert!(!tail.goes_back(asked, &head(3)), "the broker may have lied");
    assert!(tail.goes_back(asked, &head(2)));
    let newer = Head {
        epoch: Epoch::from_value(101).unwrap(),
        ..head(2)
    };
    assert!(!tail.goes_back(asked, &newer), "it has its new epoch");
    let before = tail.ask();
    let after = tail.ask();
    tail.answer(after, &head(5));
    assert!(
        !tail.goes_back(before, &head(4)),
        "that answer is merely old"
    );
}

#[test]
fn a_cursor_of_an_epoch_that_the_log_does_not_name_is_judged_by_the_stores_word() {
    let epoch = |value| Epoch::from_value(value).unwrap();
    let log = Head {
        epoch: epoch(200),
        epochs: [(100, 1), (200, 31)]
            .map(|(value, from)| EpochStart {
                epoch: epoch(value),
                from,
            })
            .to_vec(),
        ..head(70)
    };
    // From clocks that were ahead: of all of the log, and of its beginning only.
    for unknown in [150, 1 << 48] {
        for seq in [1, 30, 31, 70, 71] {
            let cursor = Position::new(epoch(unknown), seq);
            let mut tail = tail_with(&log);
            let ask = tail.ask();
            let mut reader = Reader::new(channel(), Start::After(cursor), tail.mark());
            for _ in 0..2 {
                assert!(matches!(reader.step(&tail, 1_000), Step::NeedsHead));
                assert!(!reader.is_ready(&tail), "the store may know that epoch");
                // An answer from before the cursor was known proves nothing.
                tail.answer(ask, &log);
            }
            let ask = tail.ask();
            tail.answer(ask, &log);
            // Beyond the start of the next one it may have been of this log.
            let kept = match (unknown, seq) {
                (150, 31..) => Position::new(epoch(200), 30),
                _ => Position::new(epoch(100), 0),
            };
            let cut = (Some(kept.seq + 1), seq, GapReason::Epoch, kept);
            assert_eq!(gap(reader.step(&tail, 1_000)), cut);
            assert!(!reader.is_ready(&tail));
        }
    }
}

#[test]
fn nothing_is_taken_from_a_tail_that_stands_in_an_epoch_that_is_gone() {
    let epoch = |value| Epoch::from_value(value).unwrap();
    let log = |second, newest| {
        let epochs = [(100, 1), (second, 4)].map(|(value, from)| EpochStart {
            epoch: epoch(value),
            from,
        });
        let epochs = epochs.to_vec();
        Head {
            epoch: epoch(second),
            epochs,
            ..head(newest)
        }
    };
    // A first copy was put back, and a second one while a question was under way.
    let mut tail = tail_with(&log(150, 3));
    let asked = tail.ask();
    let page = |epoch, seqs: std::ops::RangeInclusive<Seq>| -> Vec<_> {
        let position = |seq| Position::new(epoch, seq);
        seqs.map(|seq| Arc::new(Entry::damaged(position(seq))))
            .collect()
    };
    let read = tail.ask();
    tail.answer(asked, &log(150, 6));
    tail.fill(&page(epoch(150), 4..=6), &log(150, 6));
    assert_eq!(tail.known(), Some(Position::new(epoch(150), 6)));
    tail.answer(read, &log(200, 5));
    let start = Start::After(Position::new(epoch(200), 5));
    let mut reader = Reader::new(channel(), start, tail.mark());
    assert!(matches!(reader.step(&tail, 1_000), Step::Waits));
    assert!(!reader.is_ready(&tail) && tail.needs_head());
    let ask = tail.ask();
    tail.answer(ask, &log(200, 5));
    assert!(!tail.needs_head());
}

#[test]
fn a_page_of_another_log_is_not_put_in_front_of_what_is_known() {
    let log = |value, newest| {
        let epoch = Epoch::from_value(value).unwrap();
        Head {
            epoch,
            epochs: vec![EpochStart { epoch, from: 1 }],
            ..head(newest)
        }
    };
    let mut tail = Tail::new(LIMITS, 0);
    let [first, second] = [tail.ask(), tail.ask()];
    tail.answer(first, &log(50, 1));
    tail.answer(second, &head(1));
    assert_eq!(tail.known(), Some(log(50, 1).position()), "not proven yet");
    tail.extend_back(&[entry(1)]);
    assert_eq!(tail.above(0).count(), 0);
    tail.fill(&[entry(1)], &head(2));
    assert_eq!(tail.above(0).count(), 0);
}

#[test]
fn nothing_is_kept_of_an_epoch_that_is_gone() {
    let epoch = |value| Epoch::from_value(value).unwrap();
    let log = |starts: &[(u64, Seq)], newest| Head {
        epoch: epoch(starts[starts.len() - 1].0),
        epochs: starts
            .iter()
            .map(|&(value, from)| EpochStart {
                epoch: epoch(value),
                from,
            })
            .collect(),
        ..head(newest)
    };
    let mut tail = tail_with(&log(&[(150, 1)], 0));
    let page: Vec<_> = [1, 2]
        .map(|seq| Arc::new(Entry::damaged(Position::new(epoch(150), seq))))
        .to_vec();
    let ask = tail.ask();
    tail.answer(ask, &log(&[(150, 1)], 2));
    tail.fill(&page, &log(&[(150, 1)], 2));
    assert_eq!(tail.above(0).count(), 2);
    // Another log, whose first message is not that one, and which was put back once itself.
    let ask = tail.ask();
    tail.answer(ask, &log(&[(100, 1), (200, 2)], 1));
    assert_eq!(tail.known(), Some(Position::new(epoch(200), 1)));
    assert_eq!(tail.above(0).count(), 0);
}

#[test]
fn answers_of_two_logs_have_the_store_asked_which_it_is() {
    let mut tail = tail_at(3);
    let [first, second] = [tail.ask(), tail.ask()];
    let newer = Epoch::from_value(150).unwrap();
    let start = EpochStart {
        epoch: newer,
        from: 4,
    };
    // The store has read for the second before it got the new epoch, and for the first after it.
    let epochs = [head(3).epochs, vec![start]].concat();
    let log = Head {
        epoch: newer,
        epochs,
        ..head(3)
    };
    tail.answer(first, &log);
    assert!(tail.is_caught_up());
    tail.answer(second, &head(3));
    assert!(!tail.is_caught_up() && tail.needs_head());
    let third = tail.ask();
    tail.answer(third, &log);
    assert!(tail.is_caught_up() && !tail.needs_head());
}

/// The only epoch of a log of another clock, which begins at `from`.
fn epoch_from(value: u64, from: Seq) -> EpochStart {
    let epoch = Epoch::from_value(value).unwrap();
    EpochStart { epoch, from }
}

#[test]
fn numbers_of_another_log_are_no_hole() {
    let mut tail = tail_at(3);
    let ask = tail.ask();
    assert_eq!(tail.hear(entry(4)), Heard::Appended);
    // The store was replaced by one whose clock is behind, and 4 may have come after the question.
    let other = epoch_from(50, 1);
    tail.answer(
        ask,
        &Head {
            epoch: other.epoch,
            epochs: vec![other],
            ..head(9)
        },
    );
    // What comes after its number 4 is nothing that is missing here.
    assert_eq!(tail.hole(), None);
    assert!(tail.needs_head());
}

#[test]
fn late_page_of_a_log_that_was_cut_moves_nobody() {
    let mut tail = tail_at(5);
    let page = tail.ask();
    let ask = tail.ask();
    // While the page was under way, a copy was put back that had only 3.
    let newer = epoch_from(200, 4);
    tail.answer(
        ask,
        &Head {
            epoch: newer.epoch,
            epochs: vec![head(3).epochs[0], newer],
            ..head(6)
        },
    );
    let stands = Position::new(newer.epoch, 3);
    assert_eq!(tail.known(), Some(stands));
    // What had expired before says nothing of 4 to 6 as they are now.
    let before = Head {
        first: 9,
        ..head(20)
    };
    tail.answer(page, &before);
    assert!(!tail.fill(&[entry(9)], &before).reaches_on);
    assert_eq!(tail.known(), Some(stands));
}

#[test]
fn an_event_of_an_older_epoch_that_is_not_named_has_the_store_asked() {
    let mut tail = tail_with(&Head {
        epoch: Epoch::from_value(200).unwrap(),
        epochs: vec![EpochStart {
            epoch: Epoch::from_value(200).unwrap(),
            from: 1,
        }],
        ..head(3)
    });
    assert!(!tail.needs_head());
    // Late from a part that was cut off, or the first of a log that began anew with the true clock.
    assert_eq!(tail.hear(entry(1)), Heard::Dropped);
    assert!(tail.needs_head());
    let ask = tail.ask();
    tail.answer(ask, &head(1));
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

    // Pages tell as well.
    assert_eq!(tail.hear(forged(5)), Heard::Appended);
    tail.extend_back(&[entry(4), entry(5)]);
    assert_eq!(tail.take_contradictions(), 1);
    assert_eq!(joins(&tail, 4), Some(entry(5).line()));

    // What waits is believed only if nothing contradicts it.
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
    // What was answered before the cursor was known proves nothing.
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
