//! What somebody else published in the place of a true event.

use std::sync::Arc;

use chat_model::Seq;

use super::Tail;
use crate::hub::entry::Entry;

impl Tail {
    /// The place in the ring of the event with this number.
    fn place_of(&self, seq: Seq) -> Option<usize> {
        let first = self.ring.front()?.seq();
        let place = usize::try_from(seq.checked_sub(first)?).ok()?;
        (place < self.ring.len()).then_some(place)
    }

    /// An event came once more. If the ring has another one of that number, one of them is forged,
    /// and history knows which: whoever has not had it yet reads it there.
    pub(super) fn compare(&mut self, entry: &Entry) {
        let contradicts = self
            .place_of(entry.seq())
            .is_some_and(|place| self.ring[place].contradicts(entry));
        if contradicts {
            self.contradictions += 1;
            // An answer that is under way may be older than the true one.
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

    /// Puts what the store has in the place of what was forged.
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

    /// How often there were two different events of one number since this was last asked.
    pub(crate) fn take_contradictions(&mut self) -> u32 {
        std::mem::take(&mut self.contradictions)
    }
}
