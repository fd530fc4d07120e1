//! Logs that were cut back or replaced, and cursors with epochs that are not listed.

use super::*;

#[test]
fn only_a_question_asked_later_proves_a_cut_within_an_epoch() {
    let mut tail = tail_at(3);
    let asked_before = tail.ask();
    assert_eq!(tail.hear(entry(4)), Heard::Appended);
    let mut reader = Reader::new(channel(), Start::After(head(3).position()), tail.mark());
    assert!(matches!(reader.step(&tail, 1_000), Step::Items(items) if items.len() == 1));

    // The request was older than event 4, so its answer is merely old.
    tail.answer(asked_before, &head(3));
    assert_eq!(tail.known(), Some(head(4).position()));
    assert!(matches!(reader.step(&tail, 1_000), Step::Waits));

    // This request was made when 4 was known: the store never had it, or has lost it.
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
    // From clocks that were ahead: for the whole log, and only for its beginning.
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
            // Beyond the start of the next epoch it may have belonged to this log.
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
    // A first copy was restored, and a second one while a request was under way.
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
    // Another log, whose first message is a different one, and which was itself restored once.
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
    // The store was replaced by one whose clock is behind, and 4 may have arrived after the request.
    let other = epoch_from(50, 1);
    tail.answer(
        ask,
        &Head {
            epoch: other.epoch,
            epochs: vec![other],
            ..head(9)
        },
    );
    // What comes after its number 4 is not missing here.
    assert_eq!(tail.hole(), None);
    assert!(tail.needs_head());
}

#[test]
fn late_page_of_a_log_that_was_cut_moves_nobody() {
    let mut tail = tail_at(5);
    let page = tail.ask();
    let ask = tail.ask();
    // While the page was under way, a copy with only 3 was restored.
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
    // Late from a part that was cut off, or the first of a log that began again with the right clock.
    assert_eq!(tail.hear(entry(1)), Heard::Dropped);
    assert!(tail.needs_head());
    let ask = tail.ask();
    tail.answer(ask, &head(1));
    assert!(!tail.needs_head());
    assert_eq!(tail.hole().map(|known| known.seq), Some(0));
}
