//! A node of the model: its tail, what the broker has under way to it, and its requests to the store.

use std::collections::HashSet;
use std::sync::Arc;

use chat_model::{Position, Seq};

use super::super::entry::Entry;
use super::super::reader::Page;
use super::super::tail::{Ask, Heard, Tail, TailLimits};
use super::log::{Log, is_forged};

const LIMITS: TailLimits = TailLimits {
    ring_events: 4,
    ring_bytes: 4_000,
};

pub(super) enum Question {
    Head,
    /// To fill the tail's hole, or for the listener.
    Page {
        after: Seq,
        fill: bool,
    },
}

pub(super) struct Asked {
    pub(super) ask: Ask,
    pub(super) question: Question,
    pub(super) read: Option<Page>,
    /// The tail's generation when the request was made.
    pub(super) generation: u64,
}

pub(super) struct Node {
    pub(super) tail: Tail,
    pub(super) under_way: Vec<Arc<Entry>>,
    pub(super) asked: Vec<Asked>,
    /// The last page that was read for the listener, and the tail's generation when it was requested.
    pub(super) page: Option<(u64, Page)>,
    pub(super) head_wanted: bool,
    /// The positions of the store's own events that the broker delivered and the tail took, or already knew.
    pub(super) delivered: HashSet<Position>,
}

impl Node {
    pub(super) fn new() -> Self {
        let mut tail = Tail::new(LIMITS, 0);
        tail.starts_afresh();
        Self {
            tail,
            under_way: Vec::new(),
            asked: Vec::new(),
            page: None,
            head_wanted: false,
            delivered: HashSet::new(),
        }
    }

    pub(super) fn hear(&mut self, entry: &Arc<Entry>) {
        let heard = self.tail.hear(entry.clone());
        let epoch = entry.position.epoch;
        let named = self.tail.epochs().iter().any(|start| start.epoch == epoch);
        if heard != Heard::Waits && named && !is_forged(entry) {
            self.delivered.insert(entry.position);
        }
    }

    pub(super) fn maintain(&mut self) {
        let question = if let Some(known) = self.tail.hole() {
            let after = known.seq;
            Question::Page { after, fill: true }
        } else if !self.tail.is_verified() || self.tail.needs_head() || self.head_wanted {
            self.head_wanted = false;
            Question::Head
        } else {
            return;
        };
        let ask = self.tail.ask();
        let generation = self.tail.generation();
        self.asked.push(Asked {
            ask,
            question,
            read: None,
            generation,
        });
    }

    pub(super) fn read(&mut self, which: usize, log: &Log) {
        let mut unread: Vec<_> = self
            .asked
            .iter_mut()
            .filter(|asked| asked.read.is_none())
            .collect();
        if !unread.is_empty() {
            let which = which % unread.len();
            let after = match unread[which].question {
                Question::Head => Seq::MAX - 1,
                Question::Page { after, .. } => after,
            };
            unread[which].read = Some(log.page(after));
        }
    }

    pub(super) fn answer(&mut self, which: usize) {
        let read: Vec<_> = (0..self.asked.len())
            .filter(|&index| self.asked[index].read.is_some())
            .collect();
        if read.is_empty() {
            return;
        }
        let asked = self.asked.remove(read[which % read.len()]);
        let page = asked.read.unwrap();
        let epoch = self.tail.known().map(|known| known.epoch);
        let named = |epoch| page.head.epochs.iter().any(|start| start.epoch == epoch);
        let unknown = epoch.is_some_and(|epoch| !named(epoch));
        let generation = self.tail.generation();
        self.tail.answer(asked.ask, &page.head);
        if unknown && self.tail.generation() != generation {
            // It starts over, and has forgotten what it had.
            self.delivered.clear();
        }
        match asked.question {
            Question::Head => {}
            Question::Page { fill: true, .. } => {
                self.tail.fill(&page.entries, &page.head);
            }
            Question::Page { fill: false, .. } => {
                self.tail.extend_back(&page.entries);
                self.page = Some((asked.generation, page));
            }
        }
    }
}
