use std::sync::Arc;

use chat_model::{ChannelId, Cut, Epoch, Head, Position, Seq};

use super::{
    entry::Entry,
    tail::{Ask, Tail},
};
use crate::frame::{Gap, GapReason};

/// Where one listener stands in one channel, and what it gets next.
///
/// Pure, like [`Tail`]: a seat has no queue, only a position. It takes what comes after the
/// position from the tail's ring, or asks for a page of history if the ring does not reach back
/// so far.
#[derive(Debug)]
pub(crate) struct Seat {
    channel: ChannelId,
    start: Start,
    /// `None` until a start that depends on the head can be placed.
    position: Option<Position>,
    /// The tail's last question when the position was reached: a later one can disprove it.
    mark: Ask,
}

/// Where a listener wants to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// With what is posted from now on.
    Live,
    /// With so many of the newest.
    Newest(u64),
    /// After this position.
    After(Position),
    /// Its cursor could not be read: it is told so, and begins with so many of the newest.
    Unreadable(u64),
}

/// What a listener gets from one channel.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// The next event.
    Event(Arc<Entry>),
    /// Events that cannot be had, and the position at which the log goes on.
    Gap(Gap, Position),
}

impl Item {
    /// What it costs to hold it, about, in bytes.
    pub(crate) fn cost(&self) -> usize {
        match self {
            Self::Event(entry) => entry.cost(),
            Self::Gap(..) => 256,
        }
    }
}

/// What comes next for a seat.
#[derive(Debug)]
pub(crate) enum Step {
    /// These were taken; there may be more.
    Items(Vec<Item>),
    /// The ring does not reach back far enough: a page of history after this number is needed.
    NeedsPage(Position),
    /// The store must be asked where the log stands.
    NeedsHead,
    /// There is nothing until the tail changes.
    Waits,
}

/// A page of history, its events ready to be sent.
#[derive(Debug)]
pub(crate) struct Page {
    /// The number after which the page was asked for.
    pub(crate) after: Seq,
    /// What the store said of the log when it read the page.
    pub(crate) head: Head,
    /// Events in ascending order.
    pub(crate) entries: Vec<Arc<Entry>>,
}

impl Page {
    /// Whether the page tells somebody who stands at `seq` anything: an event or a gap.
    pub(crate) fn leads_on_from(&self, seq: Seq) -> bool {
        self.after <= seq
            && (self.head.first > seq + 1
                || self.entries.last().is_some_and(|last| last.seq() > seq))
    }

    /// Bytes in memory, about.
    pub(crate) fn cost(&self) -> usize {
        /// The page itself, so that many empty ones count as well.
        const OVERHEAD: usize = 256;
        OVERHEAD + self.entries.iter().map(|entry| entry.cost()).sum::<usize>()
    }
}

impl Seat {
    /// A seat for somebody who has just come. `mark` is the tail's at this moment.
    pub(crate) fn new(channel: ChannelId, start: Start, mark: Ask) -> Self {
        let position = match start {
            Start::After(position) => Some(position),
            _ => None,
        };
        Self {
            channel,
            start,
            position,
            mark,
        }
    }

    /// The channel.
    pub(crate) fn channel(&self) -> ChannelId {
        self.channel
    }

    /// Up to where the listener has been served; `None` before it could be placed.
    pub(crate) fn position(&self) -> Option<Position> {
        self.position
    }

    /// Whether nothing that existed is owed, and nothing that is posted from now on will be missed.
    pub(crate) fn is_ready(&self, tail: &Tail) -> bool {
        let reached = |position: Position| {
            tail.known().is_some_and(|known| known.seq == position.seq)
                && Cut::by_epoch(tail.epochs(), position).is_none()
        };
        tail.is_caught_up() && self.position.is_some_and(reached)
    }

    /// Takes what comes next, about `room` bytes of it at most.
    pub(crate) fn step(&mut self, tail: &Tail, room: usize) -> Step {
        let Some(known) = tail.known() else {
            return Step::Waits;
        };
        let Some(position) = self.position else {
            return self.place(tail, known).map_or(Step::Waits, Step::Items);
        };
        if let Some(cut) = Cut::by_epoch(tail.epochs(), position) {
            return self.cut_off(position, cut, tail.mark());
        }
        // A channel without a log is epoch 0, which needs nobody's word.
        let newest = tail.epochs().last().map_or(Epoch::ZERO, |last| last.epoch);
        if position.seq > known.seq || position.epoch > newest {
            if !tail.answered_since(self.mark) {
                return Step::NeedsHead;
            }
            if let Some(cut) = tail.proven_cut(position, self.mark) {
                return self.cut_off(position, cut, tail.mark());
            }
            if position.seq > known.seq {
                // This node lags behind the one that the listener comes from.
                return Step::Waits;
            }
        }
        let Some(after) = tail.after(position.seq) else {
            return Step::NeedsPage(position);
        };
        let items = self.take(after, room, tail.mark());
        if items.is_empty() {
            Step::Waits
        } else {
            Step::Items(items)
        }
    }

    /// Takes what a page of history brings, about `room` bytes of it at most; empty if it does
    /// not lead on from here.
    pub(crate) fn take_page(&mut self, page: &Page, room: usize, mark: Ask) -> Vec<Item> {
        let Some(position) = self.position else {
            return Vec::new();
        };
        if Cut::by_epoch(&page.head.epochs, position).is_some() {
            return Vec::new();
        }
        let start = page
            .entries
            .partition_point(|entry| entry.seq() <= position.seq);
        let oldest = page
            .entries
            .get(start)
            .map_or(page.head.first, |entry| entry.seq());
        let mut items = Vec::new();
        if oldest > position.seq + 1 {
            let mut epochs = page.head.epochs.iter().rev();
            let start = epochs.find(|start| start.from < oldest);
            // Where the head names none that old, the seat stays in its own.
            let epoch = start.map_or(position.epoch, |start| start.epoch);
            let skipped = Position::new(epoch, oldest - 1);
            self.reach(skipped, mark);
            items.push(self.gap(
                skipped,
                Some(position.seq + 1),
                oldest - 1,
                GapReason::Retention,
            ));
        }
        items.extend(self.take(page.entries[start..].iter(), room, mark));
        items
    }

    /// Finds the position of a start that depends on the head.
    fn place(&mut self, tail: &Tail, known: Position) -> Option<Vec<Item>> {
        if !tail.is_caught_up() {
            return None;
        }
        let back = match self.start {
            Start::Live | Start::After(_) => 0,
            Start::Newest(count) | Start::Unreadable(count) => count,
        };
        let seq = known
            .seq
            .saturating_sub(back)
            .max(tail.first() - 1)
            .min(known.seq);
        let placed = Position::new(known.epoch, seq);
        self.reach(placed, tail.mark());
        Some(match self.start {
            Start::Unreadable(_) => vec![self.gap(placed, None, seq, GapReason::Cursor)],
            _ => Vec::new(),
        })
    }

    fn take<'a>(
        &mut self,
        entries: impl Iterator<Item = &'a Arc<Entry>>,
        mut room: usize,
        mark: Ask,
    ) -> Vec<Item> {
        let mut items = Vec::new();
        for entry in entries {
            debug_assert_eq!(
                Some(entry.seq()),
                self.position.map(|position| position.seq + 1)
            );
            if entry.is_damaged() {
                self.tell_damaged(&mut items, entry.position);
            } else {
                items.push(Item::Event(entry.clone()));
            }
            self.reach(entry.position, mark);
            match room.checked_sub(entry.cost()) {
                Some(rest) => room = rest,
                None => break,
            }
        }
        items
    }

    /// Numbers in a row that are damaged are one gap.
    fn tell_damaged(&self, items: &mut Vec<Item>, at: Position) {
        match items.last_mut() {
            Some(Item::Gap(gap, last)) if gap.reason == GapReason::Damaged => {
                gap.to = at.seq;
                *last = at;
            }
            _ => items.push(self.gap(at, Some(at.seq), at.seq, GapReason::Damaged)),
        }
    }

    fn cut_off(&mut self, position: Position, cut: Cut, mark: Ask) -> Step {
        self.reach(cut.kept, mark);
        Step::Items(vec![self.gap(
            cut.kept,
            Some(cut.kept.seq + 1),
            position.seq,
            GapReason::Epoch,
        )])
    }

    fn reach(&mut self, position: Position, mark: Ask) {
        self.position = Some(position);
        self.mark = mark;
    }

    /// The announcement of a gap; the log goes on after `at`.
    fn gap(&self, at: Position, from: Option<Seq>, to: Seq, reason: GapReason) -> Item {
        Item::Gap(
            Gap {
                channel: self.channel,
                from,
                to,
                reason,
            },
            at,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{
        example_log::{self, channel, head},
        tail::{Heard, TailLimits},
    };

    fn entry(seq: Seq) -> Arc<Entry> {
        Arc::new(example_log::entry(seq, 0))
    }

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

    #[test]
    fn nobody_is_ready_before_the_tail_has_what_the_store_had() {
        let mut tail = tail_at(3);
        let mut resumed = Seat::new(channel(), Start::After(head(3).position()), tail.mark());
        let mut live = Seat::new(channel(), Start::Live, tail.mark());
        let ask = tail.ask();
        tail.answer(ask, &head(5));
        assert!(tail.is_verified());
        for seat in [&mut resumed, &mut live] {
            assert!(matches!(seat.step(&tail, 1_000), Step::Waits));
            assert!(!seat.is_ready(&tail));
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
            let mut seat = Seat::new(channel(), start, tail.mark());
            if seat.position().is_none() {
                assert!(matches!(seat.step(&tail, 0), Step::Items(items) if items.is_empty()));
            }
            assert!(matches!(seat.step(&tail, 1_000), Step::Waits));
            assert!(seat.is_ready(&tail));
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
        let limits = TailLimits {
            ring_events: 10,
            ring_bytes: 1 << 20,
        };
        let mut tail = Tail::new(limits, 0);
        let ask = tail.ask();
        tail.answer(ask, &head(0));
        let ask = tail.ask();
        tail.answer(ask, &head(5));
        assert!(tail.fill(&entries, &head(5)));
        let mut seat = Seat::new(channel(), start, tail.mark());
        let Step::Items(items) = seat.step(&tail, 10_000) else {
            panic!("all of them are there")
        };
        check(&items);
        assert!(seat.is_ready(&tail));

        // And from a page of history.
        let mut seat = Seat::new(channel(), start, tail.mark());
        let page = Page {
            after: 0,
            head: head(5),
            entries,
        };
        check(&seat.take_page(&page, 10_000, tail.mark()));
        assert!(seat.is_ready(&tail));
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
        let mut seat = Seat::new(channel(), Start::After(head(3).position()), tail.mark());
        assert!(matches!(seat.step(&tail, 1_000), Step::Items(items) if items.len() == 1));

        // The question was older than event 4: its answer is merely old.
        tail.answer(asked_before, &head(3));
        assert_eq!(tail.known(), Some(head(4).position()));
        assert!(matches!(seat.step(&tail, 1_000), Step::Waits));

        // This one was asked when 4 was known: the store never had it, or has it no more.
        let asked_after = tail.ask();
        tail.answer(asked_after, &head(3));
        assert_eq!(tail.known(), Some(head(3).position()));
        let Step::Items(items) = seat.step(&tail, 1_000) else {
            panic!("a gap is due")
        };
        let [Item::Gap(gap, position)] = &items[..] else {
            panic!("one gap: {items:?}")
        };
        assert_eq!(
            (gap.from, gap.to, gap.reason),
            (Some(4), 4, GapReason::Epoch)
        );
        assert_eq!(*position, head(3).position());

        // The next event with that number is the one that counts.
        assert_eq!(tail.hear(entry(4)), Heard::Appended);
        assert!(matches!(seat.step(&tail, 1_000), Step::Items(items) if items.len() == 1));
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
    fn a_node_that_lags_sends_nothing_below_the_floor() {
        let mut tail = tail_at(3);
        let mut seat = Seat::new(channel(), Start::After(head(5).position()), tail.mark());
        // What was answered before the cursor was known proves nothing.
        assert!(matches!(seat.step(&tail, 1_000), Step::NeedsHead));
        let ask = tail.ask();
        tail.answer(ask, &head(6));
        assert!(matches!(seat.step(&tail, 1_000), Step::Waits));
        tail.fill(&[entry(4), entry(5), entry(6)], &head(6));
        let Step::Items(items) = seat.step(&tail, 10_000) else {
            panic!("6 is there")
        };
        assert!(matches!(&items[..], [Item::Event(entry)] if entry.seq() == 6));
    }
}
