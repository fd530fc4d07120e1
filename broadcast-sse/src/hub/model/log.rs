//! The truth: one channel's log as the store has it.

use std::{collections::BTreeMap, sync::Arc};

use chat_model::{ChannelId, Epoch, EpochStart, Event, Head, NewMessage, Seq};
use uuid::Uuid;

use super::super::{entry::Entry, seat::Page};

/// Most events in a page of history.
const PAGE: usize = 3;

/// A log.
pub(super) struct Log {
    pub(super) channel: ChannelId,
    pub(super) epochs: Vec<EpochStart>,
    pub(super) events: BTreeMap<Seq, Arc<Entry>>,
    pub(super) head: Seq,
    pub(super) first: Seq,
    pub(super) made: u128,
}

impl Log {
    pub(super) fn head(&self) -> Head {
        Head {
            channel: self.channel,
            epoch: self.epochs.last().map_or(Epoch::ZERO, |start| start.epoch),
            head: self.head,
            first: self.first,
            epochs: self.epochs.clone(),
        }
    }

    pub(super) fn new_epoch(&mut self) {
        self.made += 1;
        let epoch = Epoch::from_value(self.made as u64 * 100).unwrap();
        self.epochs.push(EpochStart {
            epoch,
            from: self.head + 1,
        });
    }

    pub(super) fn post(&mut self) -> Arc<Entry> {
        if self.epochs.is_empty() {
            self.new_epoch();
        }
        self.made += 1;
        self.head += 1;
        let event = Event {
            channel: self.channel,
            epoch: self.epochs.last().unwrap().epoch,
            seq: self.head,
            id: Uuid::from_u128(self.made),
            at: 0,
            message: &NewMessage::text("a"),
        };
        let entry = Arc::new(Entry::new(self.channel, &event.encode()).unwrap());
        self.events.insert(self.head, entry.clone());
        entry
    }

    pub(super) fn page(&self, after: Seq) -> Page {
        let entries = self
            .events
            .range(after + 1..)
            .take(PAGE)
            .map(|(_, entry)| entry.clone());
        Page {
            after,
            head: self.head(),
            entries: entries.collect(),
        }
    }

    pub(super) fn expire(&mut self, count: u64) {
        self.first = (self.first + count).min(self.head + 1);
        self.events = self.events.split_off(&self.first);
    }

    pub(super) fn cut_back(&mut self, count: u64) {
        if self.epochs.is_empty() {
            return;
        }
        self.head = self.head.saturating_sub(count).max(self.first - 1);
        self.events.split_off(&(self.head + 1));
        let head = self.head;
        self.epochs.retain(|start| start.from <= head.max(1));
        self.new_epoch();
    }

    pub(super) fn has(&self, entry: &Entry) -> bool {
        self.events
            .get(&entry.seq())
            .is_some_and(|kept| kept.data() == entry.data())
    }
}
