//! The ring of events, and its end.

use std::sync::Arc;

use chat_model::{Cut, Position, Seq};

use super::Tail;
use crate::hub::entry::Entry;

impl Tail {
    /// The events after `seq`, if the ring reaches back that far.
    pub(crate) fn after(&self, seq: Seq) -> Option<impl Iterator<Item = &Arc<Entry>>> {
        let known = self.known?;
        let start = known.seq + 1 - self.ring.len() as Seq;
        let skip = (seq + 1).checked_sub(start)?;
        (seq <= known.seq).then(|| self.ring.range(skip as usize..))
    }

    /// The events in the ring above `seq`, newest first.
    pub(crate) fn above(&self, seq: Seq) -> impl Iterator<Item = &Arc<Entry>> {
        let newest_first = self.ring.iter().rev();
        newest_first.take_while(move |entry| entry.seq() > seq)
    }

    /// Frees memory until at most `cost` bytes are left. Everything is also in history.
    pub(crate) fn shrink_to(&mut self, cost: usize) {
        while self.cost() > cost && !self.ring.is_empty() {
            self.drop_oldest();
        }
        while self.cost() > cost
            && let Some((_, early)) = self.early.pop_last()
        {
            self.early_cost -= early.entry.cost();
            self.forgotten = Some(self.asked);
        }
        // Unused capacity is not in the memory account.
        if self.ring.capacity() > 4 * self.ring.len() {
            self.ring.shrink_to(2 * self.ring.len());
        }
    }

    pub(super) fn drop_oldest(&mut self) {
        if let Some(entry) = self.ring.pop_front() {
            self.ring_cost -= entry.cost();
        }
    }

    pub(super) fn append(&mut self, entry: Arc<Entry>) {
        self.reach(entry.position);
        self.ring_cost += entry.cost();
        self.ring.push_back(entry);
        while self.ring.len() > self.limits.ring_events || self.ring_cost > self.limits.ring_bytes {
            self.drop_oldest();
        }
    }

    pub(super) fn cut_back(&mut self, cut: Cut) {
        self.generation += 1;
        while self
            .ring
            .back()
            .is_some_and(|entry| entry.seq() > cut.kept.seq)
        {
            let entry = self.ring.pop_back().expect("its presence was just checked");
            self.ring_cost -= entry.cost();
        }
        if self
            .ring
            .back()
            .is_none_or(|entry| entry.seq() != cut.kept.seq)
        {
            self.clear_ring();
        }
        self.reach(cut.kept);
    }

    pub(super) fn clear_ring(&mut self) {
        self.ring.clear();
        self.ring_cost = 0;
    }

    pub(super) fn reach(&mut self, position: Position) {
        self.known = Some(position);
        self.known_mark = self.asked;
    }
}
