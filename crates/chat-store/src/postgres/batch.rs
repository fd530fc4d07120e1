//! What becomes of each message of a batch, and what is to be written for it. No I/O: everything
//! that must be known was read under the locks.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use chat_model::Epoch;
use uuid::Uuid;

use super::epochs::Epochs;
use super::numbers::{from_stored, from_stored_number, to_stored, to_stored_number};
use crate::checksum::checksum;
use crate::expiry_clock::milliseconds;
use crate::key_shares::KeyShares;
use crate::next_event::next_event;
use crate::retention::EVENT_BYTES;
use crate::sender_keys::key_of;
use crate::{Append, Appended, KeyMemory, Position, Share, StoreError};

/// The moment of a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// Milliseconds since 1970.
    pub(super) now: u64,
    /// Reading of the expiry clock.
    pub(super) expiry: u64,
}

/// A log whose row is locked.
#[derive(Debug, Clone, Default)]
pub(super) struct Log {
    pub(super) no: i64,
    pub(super) head: u64,
    pub(super) at: u64,
    pub(super) floor: u64,
    pub(super) epochs: Epochs,
    /// Bytes of all events that it ever had, and of those that have expired.
    pub(super) sent: u64,
    pub(super) gone: u64,
    /// Whether something is stored in it by this batch, and whether its epochs are others now.
    pub(super) changed: bool,
    pub(super) new_epochs: bool,
}

/// A sender's key that is remembered.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// `None` if it came with this batch.
    pub(super) n: Option<i64>,
    pub(super) fingerprint: [u8; 16],
    pub(super) id: Uuid,
    pub(super) epoch: i64,
    pub(super) seq: u64,
    pub(super) kept_at: u64,
    /// `None` when it has expired.
    pub(super) event: Option<Bytes>,
}

/// The room for keys.
#[derive(Debug, Clone, Default)]
pub(super) struct KeyRoom {
    /// How many there are, at most.
    pub(super) count: u64,
    /// How many of them are too young to be forgotten.
    pub(super) young: u64,
    /// When the oldest were kept that may have to go, oldest first; empty if none has to.
    pub(super) oldest: Vec<i64>,
}

/// All that a batch has to know, and the columns of what it writes.
pub(super) struct Batch<'a> {
    pub(super) moment: Moment,
    pub(super) rules: &'a KeyMemory,
    pub(super) shares: &'a KeyShares,
    pub(super) lane: u32,
    /// Where it is written to.
    pub(super) segment: i32,
    pub(super) incarnations: Vec<i64>,
    /// The newest epoch of channels that are gone.
    pub(super) forgotten: Epoch,
    pub(super) logs: HashMap<Uuid, Log>,
    pub(super) known: HashMap<(Uuid, [u8; 17]), Known>,
    pub(super) key_room: KeyRoom,
    pub(super) events: NewEvents,
    pub(super) keys: NewKeys,
    /// Keys found too old.
    pub(super) too_old: HashSet<i64>,
    /// How many of the oldest keys go, and how many of those before their time.
    pub(super) oldest_to_go: u64,
    pub(super) dropped_early: u64,
}

/// Columns of `log`.
#[derive(Default)]
pub(super) struct NewEvents {
    pub(super) channel_no: Vec<i64>,
    pub(super) seq: Vec<i64>,
    pub(super) pos: Vec<i64>,
    pub(super) at: Vec<i64>,
    pub(super) event: Vec<Bytes>,
    pub(super) sum: Vec<i32>,
    pub(super) upto: Vec<i64>,
}

/// Columns of `sender_keys`.
#[derive(Default)]
pub(super) struct NewKeys {
    pub(super) channel_no: Vec<i64>,
    pub(super) key: Vec<[u8; 17]>,
    pub(super) fingerprint: Vec<[u8; 16]>,
    pub(super) id: Vec<Uuid>,
    pub(super) epoch: Vec<i64>,
    pub(super) seq: Vec<i64>,
}

/// Columns of `channels`.
#[derive(Default)]
pub(super) struct ChangedLogs {
    pub(super) no: Vec<i64>,
    pub(super) head: Vec<i64>,
    pub(super) at: Vec<i64>,
    pub(super) epoch: Vec<Option<i64>>,
    pub(super) epochs: Vec<Option<String>>,
    pub(super) starts: Vec<Option<String>>,
    pub(super) sent: Vec<i64>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(
        moment: Moment,
        rules: &'a KeyMemory,
        shares: &'a KeyShares,
        lane: u32,
    ) -> Self {
        Self {
            moment,
            rules,
            shares,
            lane,
            segment: 0,
            incarnations: Vec::new(),
            forgotten: Epoch::ZERO,
            logs: HashMap::new(),
            known: HashMap::new(),
            key_room: KeyRoom::default(),
            events: NewEvents::default(),
            keys: NewKeys::default(),
            too_old: HashSet::new(),
            oldest_to_go: 0,
            dropped_early: 0,
        }
    }

    /// Decides about one message; `pos` is its place in the lane if it is stored.
    pub(super) fn append(&mut self, new: &Append, pos: i64) -> Result<Appended, StoreError> {
        let uuid = new.channel.uuid();
        let keyed = new.message.id.is_some() || new.key.is_some();
        let fingerprint = if keyed {
            new.message.fingerprint()
        } else {
            [0; 16]
        };
        if keyed && let Some(earlier) = self.find(uuid, new, &fingerprint)? {
            return Ok(earlier);
        }
        let now = self.moment.now;
        let Some(log) = self.logs.get(&uuid) else {
            // It was read, and makes no sense: its numbers would be given out again.
            return Err(StoreError::damaged("the channel's row makes no sense"));
        };
        let mut epochs = log.epochs.clone();
        let mut new_epochs = epochs.complete(&self.incarnations, log.head);
        let epoch = epochs.current().unwrap_or_else(|| {
            new_epochs = true;
            epochs.begin(&self.incarnations, self.forgotten, now)
        });
        let seq = log.head + 1;
        let no = log.no;
        let next = next_event(new, epoch, seq, log.at, now)?;
        if keyed {
            self.make_room(new)?;
        }
        if let Some(log) = self.logs.get_mut(&uuid) {
            log.head = seq;
            log.at = next.at;
            log.sent += next.event.len() as u64 + EVENT_BYTES;
            self.events.upto.push(to_stored_number(log.sent));
            log.changed = true;
            if new_epochs {
                log.epochs = epochs;
                log.new_epochs = true;
            }
        }
        self.events.channel_no.push(no);
        self.events.seq.push(to_stored_number(seq));
        self.events.pos.push(pos);
        self.events.at.push(to_stored_number(next.at));
        let sum = checksum(new.channel, seq, &next.event);
        self.events.sum.push(sum);
        self.events.event.push(next.event.clone());
        if let Some((_, key)) = key_of(new) {
            self.keys.channel_no.push(no);
            self.keys.key.push(key);
            self.keys.fingerprint.push(fingerprint);
            self.keys.id.push(next.id);
            self.keys.epoch.push(to_stored(epoch));
            self.keys.seq.push(to_stored_number(seq));
            let known = Known {
                n: None,
                fingerprint,
                id: next.id,
                epoch: to_stored(epoch),
                seq,
                kept_at: self.moment.expiry,
                event: Some(next.event.clone()),
            };
            self.known.insert((uuid, key), known);
        }
        Ok(Appended::Stored {
            event: next.event,
            epoch,
            seq,
            id: next.id,
            position: Position::new(self.lane, from_stored_number(pos)),
        })
    }

    /// The message of the same id or key that was stored before.
    fn find(
        &mut self,
        uuid: Uuid,
        new: &Append,
        fingerprint: &[u8; 16],
    ) -> Result<Option<Appended>, StoreError> {
        let Some((what, key)) = key_of(new) else {
            return Ok(None);
        };
        let Some(known) = self.known.get(&(uuid, key)) else {
            return Ok(None);
        };
        if known.kept_at + milliseconds(self.rules.max_age) <= self.moment.expiry {
            // Too old, and retention has not come by yet.
            self.too_old.extend(known.n);
            return Ok(None);
        }
        if known.fingerprint != *fingerprint {
            return Err(StoreError::KeyReused { what });
        }
        Ok(Some(Appended::Repeated {
            event: known.event.clone(),
            epoch: from_stored(known.epoch),
            seq: known.seq,
            id: known.id,
        }))
    }

    /// Makes room for a message's key by forgetting the oldest, unless that is too young, or the
    /// sender or the channel has its share.
    fn make_room(&mut self, new: &Append) -> Result<(), StoreError> {
        let fresh = self.keys.key.len() as u64;
        if !self.shares.is_roomy(self.key_room.count + fresh) {
            let young = self.key_room.young + fresh;
            self.shares.check(new, young, self.moment.expiry)?;
        }
        // Where the bound was lowered, the rest goes by age.
        let before = self.key_room.count.min(self.rules.max_count);
        let kept = before + fresh + 1;
        let surplus = kept.saturating_sub(self.rules.max_count);
        if surplus <= self.oldest_to_go {
            return Ok(());
        }
        let expiry = self.moment.expiry;
        let range = self.oldest_to_go..surplus;
        let going: Vec<u64> = range
            .filter_map(|place| self.key_room.oldest.get(usize::try_from(place).ok()?))
            .map(|&kept_at| from_stored_number(kept_at))
            .collect();
        let youngest = going.iter().copied().max().unwrap_or(0);
        let old_enough = youngest + milliseconds(self.rules.min_age);
        if !going.is_empty() && old_enough > expiry {
            return Err(StoreError::KeysFull {
                share: Share::All,
                retry_after: Duration::from_millis(old_enough - expiry).max(Duration::from_secs(1)),
            });
        }
        let max_age = milliseconds(self.rules.max_age);
        let early = going.iter().filter(|&&kept_at| kept_at + max_age > expiry);
        self.dropped_early += early.count() as u64;
        self.oldest_to_go = surplus;
        Ok(())
    }

    /// The new state of the logs that something was stored in.
    pub(super) fn changed_logs(&self) -> ChangedLogs {
        let mut changed = ChangedLogs::default();
        for log in self.logs.values().filter(|log| log.changed) {
            changed.no.push(log.no);
            changed.head.push(to_stored_number(log.head));
            changed.at.push(to_stored_number(log.at));
            let lists = log.new_epochs.then(|| log.epochs.to_text());
            let (epochs, starts) = lists.unzip();
            let epoch = log.epochs.current().filter(|_| log.new_epochs);
            changed.epoch.push(epoch.map(to_stored));
            changed.epochs.push(epochs);
            changed.starts.push(starts);
            changed.sent.push(to_stored_number(log.sent));
        }
        changed
    }

    /// The rows that were made for logs which did not begin after all.
    pub(super) fn empty_logs(&self) -> Vec<i64> {
        let empty = self.logs.values().filter(|log| log.epochs.list.is_empty());
        empty.map(|log| log.no).collect()
    }

    /// Logs that now keep more events than this, or more bytes.
    pub(super) fn longer_than(&self, events: u64, bytes: u64) -> Vec<i64> {
        let changed = self.logs.values().filter(|log| log.changed);
        let long = changed.filter(|log| {
            log.head.saturating_sub(log.floor) > events || log.sent.saturating_sub(log.gone) > bytes
        });
        long.map(|log| log.no).collect()
    }
}
