//! What the store says: heads and pages of history, as answers to numbered questions.

use std::sync::Arc;

use chat_model::{Cut, Head, Position, Seq};

use super::{Ask, Tail};
use crate::hub::entry::Entry;

/// What the store last said.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) ask: Ask,
    pub(super) position: Position,
    pub(super) first: Seq,
}

impl Tail {
    /// Whether an answer says less than the store itself has said before, in the same epoch: an
    /// older copy of it was put back, and has no new epoch. Nothing from the broker counts here.
    pub(crate) fn goes_back(&self, ask: Ask, head: &Head) -> bool {
        self.answer.is_some_and(|before| {
            ask > before.ask
                && head.epoch == before.position.epoch
                && head.head < before.position.seq
        })
    }

    /// The store answered the question numbered `ask`. Says whether listeners should look again.
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
                // Perhaps not even what lies before the cut is of this log.
                self.clear_ring();
            }
        }
        self.forget_what_does_not_exist(ask, head);
        self.append_waiting();
        true
    }

    /// A page of history that was read after the position `after`, with the head at that moment
    /// already given to [`answer`](Self::answer). Says whether the ring has grown at its end.
    pub(crate) fn fill(&mut self, page: &[Arc<Entry>], head: &Head) -> bool {
        let Some(before) = self.known.filter(|_| !self.is_of_another_log()) else {
            return false;
        };
        if head.first > before.seq + 1
            && Cut::by_epoch(&head.epochs, before).is_none()
            && Cut::by_unknown_epoch(&head.epochs, before).is_none()
        {
            // What comes next has expired; whoever needs it learns so from history.
            self.clear_ring();
            let epoch = self.epoch_of(head.first - 1).unwrap_or(head.epoch);
            self.reach(Position::new(epoch, head.first - 1));
        }
        self.correct(page);
        for entry in page {
            let next = self.known.map_or(0, |known| known.seq + 1);
            if entry.seq() == next && self.epoch_of(next) == Some(entry.position.epoch) {
                self.append(entry.clone());
            }
        }
        self.append_waiting();
        self.known != Some(before)
    }

    /// Puts older events in front of the ring, as far as there is room.
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

    /// Whether the store, asked after `mark`, has proved that a position known at `mark` was cut
    /// off; and to where.
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

    /// Whether a question asked after `mark` has been answered.
    pub(crate) fn answered_since(&self, mark: Ask) -> bool {
        self.answer.is_some_and(|answer| answer.ask > mark)
    }
}
