//! Handles events that somebody else published under the number of a true event.

use std::sync::Arc;

use chat_model::Seq;

use super::Tail;
use crate::hub::entry::Entry;

impl Tail {
    /// The index in the ring of the event with this number.
    fn place_of(&self, seq: Seq) -> Option<usize> {
        let first = self.ring.front()?.seq();
        let place = usize::try_from(seq.checked_sub(first)?).ok()?;
        (place < self.ring.len()).then_some(place)
    }

    /// Compares an event that arrived again. If the ring has a different one with that number, one of them
    /// is forged. History has the true one: listeners that have not had it yet read it there.
    pub(super) fn compare(&mut self, entry: &Entry) {
        let contradicts = self
            .place_of(entry.seq())
            .is_some_and(|place| self.ring[place].contradicts(entry));
        if contradicts {
            self.contradictions += 1;
            // An answer that is under way may be older than the true event.
            self.known_mark = self.asked;
            while self
                .ring
                .front()
                .is_some_and(|first| first.seq() <= entry.seq())
            {
                self.drop_oldest();
            }
        }
    }

    /// Replaces forged events with those that the store has.
    pub(super) fn correct(&mut self, page: &[Arc<Entry>]) {
        for entry in page {
            if let Some(place) = self.place_of(entry.seq())
                && self.ring[place].contradicts(entry)
            {
                self.contradictions += 1;
                self.ring_cost += entry.cost();
                self.ring_cost -= self.ring[place].cost();
                self.ring[place] = entry.clone();
            }
        }
    }

    /// How often there were two different events with one number since the last call.
    pub(crate) fn take_contradictions(&mut self) -> u32 {
        std::mem::take(&mut self.contradictions)
    }
}
