//! How a tail takes the store's answers to numbered requests: heads and pages of history.

use std::sync::Arc;

use chat_model::{Cut, Head, Position, Seq};

use super::{Ask, Tail};
use crate::hub::entry::Entry;

/// What a page of history changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filled {
    /// Whether more of the log is known than before.
    pub(crate) reaches_on: bool,
    /// How many events of the page the broker had not delivered.
    pub(crate) healed: u64,
}

/// The store's last answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) ask: Ask,
    pub(super) position: Position,
    pub(super) first: Seq,
}

impl Tail {
    /// Whether an answer has less than an earlier answer of the store in the same epoch: then an older copy
    /// of the store was restored without a new epoch. What came from the broker does not count here.
    pub(crate) fn goes_back(&self, ask: Ask, head: &Head) -> bool {
        self.answer.is_some_and(|before| {
            ask > before.ask
                && head.epoch == before.position.epoch
                && head.head < before.position.seq
        })
    }

    /// Takes the store's answer to the request numbered `ask`. Returns whether listeners should look again.
    pub(crate) fn answer(&mut self, ask: Ask, head: &Head) -> bool {
        if self.answer.is_some_and(|answer| answer.ask >= ask) {
            return false;
        }
        self.answer = Some(Answer {
            ask,
            position: head.position(),
            first: head.first,
        });
        if self.forgotten.is_some_and(|forgotten| ask > forgotten) {
            self.forgotten = None;
        }
        let newer =
            head.epochs.last().map(|last| last.epoch) > self.epochs.last().map(|last| last.epoch);
        if newer || ask > self.epochs_mark {
            if self.epochs != head.epochs {
                self.generation += 1;
                self.epochs.clone_from(&head.epochs);
            }
            self.epochs_mark = self.asked;
        }
        let Some(known) = self.known else {
            self.reach(head.position());
            self.forget_what_does_not_exist(ask, head);
            self.append_waiting();
            return true;
        };
        let cut = if ask > self.known_mark {
            head.cut(known)
        } else {
            Cut::by_epoch(&self.epochs, known)
        };
        if let Some(cut) = cut {
            let named = head.epochs.iter().any(|start| start.epoch == known.epoch);
            self.cut_back(cut);
            if !named {
                // Perhaps not even the part before the cut belongs to this log.
                self.clear_ring();
            }
        }
        self.forget_what_does_not_exist(ask, head);
        self.append_waiting();
        true
    }

    /// Takes a page of history. Its head must already have been given to [`answer`](Self::answer).
    pub(crate) fn fill(&mut self, page: &[Arc<Entry>], head: &Head) -> Filled {
        let Some(before) = self.known.filter(|_| !self.is_of_another_log()) else {
            return Filled::default();
        };
        let mut healed = 0;
        if head.first > before.seq + 1
            && Cut::by_epoch(&head.epochs, before).is_none()
            && Cut::by_unknown_epoch(&head.epochs, before).is_none()
        {
            // What comes next has expired; listeners that need it learn that from history.
            self.clear_ring();
            let epoch = self.epoch_of(head.first - 1).unwrap_or(head.epoch);
            self.reach(Position::new(epoch, head.first - 1));
        }
        self.correct(page);
        for entry in page {
            let next = self.known.map_or(0, |known| known.seq + 1);
            let epoch = entry.position.epoch;
            if entry.seq() == next && self.epoch_of(next) == Some(epoch) {
                let waits = self.early.contains_key(&(next, epoch));
                healed += u64::from(!waits && !entry.is_damaged());
                self.append(entry.clone());
            }
        }
        self.append_waiting();
        Filled {
            reaches_on: self.known != Some(before),
            healed,
        }
    }

    /// Adds older events to the front of the ring, as far as there is room.
    pub(crate) fn extend_back(&mut self, page: &[Arc<Entry>]) {
        let known = self.known.filter(|_| !self.is_of_another_log());
        let Some(known) = known else { return };
        self.correct(page);
        for entry in page.iter().rev() {
            let first = self.ring.front().map_or(known.seq + 1, |entry| entry.seq());
            if entry.seq() + 1 != first {
                continue;
            }
            let room = self.ring.len() < self.limits.ring_events
                && self.ring_cost + entry.cost() <= self.limits.ring_bytes;
            if !room || self.epoch_of(entry.seq()) != Some(entry.position.epoch) {
                return;
            }
            self.ring_cost += entry.cost();
            self.ring.push_front(entry.clone());
        }
    }

    /// Whether an answer to a request made after `mark` has proved that a position known at `mark` was cut
    /// off, and to where.
    pub(crate) fn proven_cut(&self, position: Position, mark: Ask) -> Option<Cut> {
        let answer = self.answer.filter(|answer| answer.ask > mark)?;
        if self.epochs_in_doubt() {
            return None;
        }
        Cut::by_unknown_epoch(&self.epochs, position).or_else(|| {
            let beyond = position.seq > answer.position.seq;
            beyond.then_some(Cut {
                kept: answer.position,
            })
        })
    }

    /// Whether a request made after `mark` has been answered.
    pub(crate) fn answered_since(&self, mark: Ask) -> bool {
        self.answer.is_some_and(|answer| answer.ask > mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::example_log::{self, head};
    use crate::hub::tail::TailLimits;

    fn entry(seq: Seq) -> Arc<Entry> {
        Arc::new(example_log::entry(seq, 0))
    }

    #[test]
    fn only_what_the_broker_has_not_brought_is_healed() {
        let limits = TailLimits {
            ring_events: 1000,
            ring_bytes: 1 << 20,
        };
        let mut tail = Tail::new(limits, 0);
        let ask = tail.ask();
        tail.answer(ask, &head(0));
        for seq in (2..=50).chain(52..=100) {
            tail.hear(entry(seq));
        }
        let page: Vec<_> = (1..=100).map(entry).collect();
        let [first, rest] = [&page[..60], &page[60..]];
        let filled = |healed| Filled {
            reaches_on: true,
            healed,
        };
        assert_eq!(tail.fill(first, &head(100)), filled(2), "1 and 51");
        assert_eq!(tail.fill(rest, &head(100)), Filled::default());
        // 101 to 149 have expired, 151 is damaged.
        let damaged = Entry::damaged(Position::new(head(1).epoch, 151));
        let page = [entry(150), Arc::new(damaged), entry(152)];
        let log = Head {
            first: 150,
            ..head(152)
        };
        assert_eq!(tail.fill(&page, &log), filled(2), "150 and 152");
    }
}
