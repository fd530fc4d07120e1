//! Events that cannot be appended yet.

use std::sync::Arc;

use chat_model::{Head, Seq};

use super::{Ask, Heard, Tail};
use crate::hub::entry::Entry;

#[derive(Debug)]
pub(super) struct Early {
    pub(super) entry: Arc<Entry>,
    /// The number of the last request when it arrived.
    pub(super) mark: Ask,
}

impl Tail {
    pub(super) fn wait(&mut self, entry: Arc<Entry>) -> Heard {
        let key = (entry.seq(), entry.position.epoch);
        let mut fits = self.early_cost + entry.cost() <= self.limits.ring_bytes;
        if let Some(twin) = self.early.remove(&key) {
            self.early_cost -= twin.entry.cost();
            if twin.entry.contradicts(&entry) {
                // Neither is trusted: history has the true one.
                self.contradictions += 1;
                fits = false;
            }
        }
        if fits {
            self.early_cost += entry.cost();
            let mark = self.asked;
            self.early.insert(key, Early { entry, mark });
        } else {
            // It is also in history.
            self.forgotten = Some(self.asked);
        }
        Heard::Waits
    }

    pub(super) fn append_waiting(&mut self) {
        let Some(mut known) = self.known else { return };
        if self.is_of_another_log() {
            return;
        }
        while let Some(waiting) = self.early.first_entry() {
            let (seq, epoch) = *waiting.key();
            if seq > known.seq + 1 {
                break;
            }
            if self.epochs.last().is_none_or(|last| epoch > last.epoch) {
                // Its epoch is still in doubt; it must not block the others.
                let Some(other) = self.fitting(known.seq + 1) else {
                    break;
                };
                self.append(other);
            } else {
                let entry = waiting.remove().entry;
                self.early_cost -= entry.cost();
                if seq == known.seq + 1 && self.epoch_of(seq) == Some(epoch) {
                    self.append(entry);
                }
            }
            known = self.known.unwrap_or(known);
        }
    }

    /// Takes the event with this number and the right epoch from those that wait.
    pub(super) fn fitting(&mut self, seq: Seq) -> Option<Arc<Entry>> {
        let entry = self.early.remove(&(seq, self.epoch_of(seq)?))?.entry;
        self.early_cost -= entry.cost();
        Some(entry)
    }

    /// Drops waiting events that cannot exist: they arrived before the request was made, but the store's
    /// answer does not have them. An event is committed before it is published.
    pub(super) fn forget_what_does_not_exist(&mut self, ask: Ask, head: &Head) {
        let mut in_doubt = false;
        let last = self.epochs.last().map(|last| last.epoch);
        let mut freed = 0;
        self.early.retain(|&(seq, epoch), early| {
            let told_before = early.mark < ask;
            let unknown = Some(epoch) > last;
            let keep = !told_before || (!unknown && seq <= head.head);
            if !keep {
                freed += early.entry.cost();
            }
            in_doubt |= keep && unknown;
            keep
        });
        self.early_cost -= freed;
        self.epoch_in_doubt = in_doubt;
    }
}
