//! The truth: one channel's log as the store has it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chat_model::{ChannelId, Epoch, EpochStart, Event, EventView, Head, NewMessage, Position, Seq};
use uuid::Uuid;

use super::super::entry::{Entry, plain};
use super::super::reader::Page;

/// The most events in a page of history.
const PAGE: usize = 3;

const FORGED: &str = "forged";

/// Whether the event is not the store's.
pub(super) fn is_forged(entry: &Entry) -> bool {
    EventView::parse(&entry.line()).unwrap().text.as_deref() == Some(FORGED)
}

/// A log.
pub(super) struct Log {
    pub(super) channel: ChannelId,
    pub(super) epochs: Vec<EpochStart>,
    pub(super) events: BTreeMap<Seq, Arc<Entry>>,
    /// Numbers whose events can no longer be read.
    pub(super) damaged: BTreeSet<Seq>,
    pub(super) head: Seq,
    pub(super) first: Seq,
    /// The newest that has ever expired.
    pub(super) expired: Seq,
    /// Whether there was another log before.
    pub(super) is_another: bool,
    pub(super) made: u128,
    pub(super) clock: u64,
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

    /// Begins an epoch that is created at this time, or just after the previous one.
    fn new_epoch(&mut self, time: u64) {
        self.made += 1;
        let last = self
            .epochs
            .last()
            .map_or(0, |last| last.epoch.value() >> 13);
        let epoch = Epoch::from_value(time.max(last + 1) << 13 | self.made as u64).unwrap();
        self.epochs.push(EpochStart {
            epoch,
            from: self.head + 1,
        });
    }

    pub(super) fn post(&mut self) -> Arc<Entry> {
        if self.epochs.is_empty() {
            self.new_epoch(self.clock);
        }
        self.clock += 1;
        self.head += 1;
        let epoch = self.epochs.last().unwrap().epoch;
        let entry = self.make(Position::new(epoch, self.head), "a");
        self.events.insert(self.head, entry.clone());
        entry
    }

    /// An event that is not the store's, this far ahead of the head; with `epoch_too`, in an epoch that does
    /// not exist.
    pub(super) fn forge(&mut self, ahead: i64, epoch_too: bool) -> Option<Arc<Entry>> {
        let epoch = self.epochs.last()?.epoch;
        let later = Epoch::after(epoch, 0);
        let seq = self.head.saturating_add_signed(ahead).max(1);
        let epoch = if epoch_too { later } else { epoch };
        Some(self.make(Position::new(epoch, seq), FORGED))
    }

    fn make(&mut self, position: Position, text: &str) -> Arc<Entry> {
        self.made += 1;
        let event = Event {
            channel: self.channel,
            epoch: position.epoch,
            seq: position.seq,
            id: Uuid::from_u128(self.made),
            at: 0,
            message: &NewMessage::text(text),
        };
        Arc::new(Entry::new(self.channel, &event.encode(), plain).unwrap())
    }

    pub(super) fn page(&self, after: Seq) -> Page {
        let entries = self
            .events
            .range(after + 1..)
            .take(PAGE)
            .map(|(seq, entry)| match self.damaged.contains(seq) {
                true => Arc::new(Entry::damaged(entry.position)),
                false => entry.clone(),
            });
        Page {
            after,
            head: self.head(),
            entries: entries.collect(),
        }
    }

    pub(super) fn expire(&mut self, count: u64) {
        self.first = (self.first + count).min(self.head + 1);
        self.expired = self.expired.max(self.first - 1);
        self.events = self.events.split_off(&self.first);
    }

    pub(super) fn cut_back(&mut self, count: u64) {
        if self.epochs.is_empty() {
            return;
        }
        self.head = self.head.saturating_sub(count).max(self.first - 1);
        self.events.split_off(&(self.head + 1));
        self.damaged.split_off(&(self.head + 1));
        let head = self.head;
        self.epochs.retain(|start| start.from <= head.max(1));
        self.new_epoch(self.clock);
    }

    /// The log is restored from a copy from before it began: what follows is another log.
    pub(super) fn forget(&mut self) {
        self.is_another = true;
        self.epochs.clear();
        self.events.clear();
        self.damaged.clear();
        self.head = 0;
        self.first = 1;
    }

    /// One of the events can no longer be read.
    pub(super) fn damage(&mut self, which: usize) {
        if !self.events.is_empty() {
            let seq = self.events.keys().nth(which % self.events.len());
            self.damaged.extend(seq);
        }
    }

    pub(super) fn names(&self, epoch: Epoch) -> bool {
        self.epochs.iter().any(|start| start.epoch == epoch)
    }

    pub(super) fn has(&self, entry: &Entry) -> bool {
        self.events
            .get(&entry.seq())
            .is_some_and(|kept| kept.line() == entry.line())
    }
}
