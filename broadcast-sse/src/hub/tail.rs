mod answer;
mod early;
mod forged;
mod ring;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use chat_model::{Cut, Epoch, EpochStart, Position, Seq};

use super::entry::Entry;
use answer::Answer;
use early::Early;

/// The newest part of one channel's log, as this node knows it.
///
/// Pure: it is given what arrives from the broker and from the store, in any order, and keeps a contiguous
/// ring of events that ends at [`known`](Self::known). Its rules:
///
/// - An event at or below `known` is dropped. The next one is appended. One further ahead waits until the
///   hole before it is filled from history.
/// - A new epoch is trusted only when the store lists it.
/// - Every request to the store has a number. An answer proves that the log was cut back only if it was
///   requested after the fact that it contradicts was known.
#[derive(Debug)]
pub(crate) struct Tail {
    limits: TailLimits,
    /// How far the log is known; `None` until the store has first answered.
    known: Option<Position>,
    /// The number of the last request when `known` last moved.
    known_mark: Ask,
    epochs: Vec<EpochStart>,
    epochs_mark: Ask,
    /// Contiguous, ending at `known`.
    ring: VecDeque<Arc<Entry>>,
    ring_cost: usize,
    /// Events that cannot be appended yet.
    early: BTreeMap<(Seq, Epoch), Early>,
    early_cost: usize,
    /// The number of the last request.
    asked: Ask,
    answer: Option<Answer>,
    /// Answers to later requests than this one count for new listeners.
    fresh_after: Ask,
    /// Whether an event of an unknown epoch waits for the store's answer.
    epoch_in_doubt: bool,
    /// The number of the last request when an event was discarded for lack of room.
    forgotten: Option<Ask>,
    generation: u64,
    /// How often there were two different events with one number.
    contradictions: u32,
}

/// Limits of one channel's memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TailLimits {
    /// The most events in the ring.
    pub(crate) ring_events: usize,
    /// The most bytes in the ring, and again in events that wait until a hole is filled.
    pub(crate) ring_bytes: usize,
}

/// The number of a request to the store. The requests of one channel are numbered in order. With about one
/// a second at most, the numbers last for a century.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ask(u32);

/// What happened to an event from the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The ring has grown.
    Appended,
    /// It was already known, or belongs to a part of the log that is gone.
    Dropped,
    /// It waits for those before it, or for the store's answer about its epoch.
    Waits,
}

impl Tail {
    /// A tail that knows nothing yet. Its generations begin with `generation`.
    pub(crate) fn new(limits: TailLimits, generation: u64) -> Self {
        Self {
            limits,
            known: None,
            known_mark: Ask::default(),
            epochs: Vec::new(),
            epochs_mark: Ask::default(),
            ring: VecDeque::new(),
            ring_cost: 0,
            early: BTreeMap::new(),
            early_cost: 0,
            asked: Ask::default(),
            answer: None,
            fresh_after: Ask::default(),
            epoch_in_doubt: false,
            forgotten: None,
            generation,
            contradictions: 0,
        }
    }

    /// How far the log is known; `None` until the store has first answered.
    pub(crate) fn known(&self) -> Option<Position> {
        self.known
    }

    /// The epochs of the log, oldest first.
    pub(crate) fn epochs(&self) -> &[EpochStart] {
        &self.epochs
    }

    /// The newest epoch. A channel without a log has epoch 0, which needs no confirmation by the store.
    pub(crate) fn newest_epoch(&self) -> Epoch {
        self.epochs.last().map_or(Epoch::ZERO, |last| last.epoch)
    }

    /// Grows whenever a part of the log may have been removed; pages requested earlier are then invalid.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// The oldest number that the store kept when it last answered.
    pub(crate) fn first(&self) -> Seq {
        self.answer.map_or(1, |answer| answer.first)
    }

    /// The number of the last request. What is known now was known before the next request.
    pub(crate) fn mark(&self) -> Ask {
        self.asked
    }

    /// Bytes in the ring and in waiting events.
    pub(crate) fn cost(&self) -> usize {
        self.ring_cost + self.early_cost
    }

    /// Numbers a request that is about to be sent.
    pub(crate) fn ask(&mut self) -> Ask {
        self.asked.0 += 1;
        self.asked
    }

    /// Notes that the node begins to receive the channel again (or knows that it cannot). From now on,
    /// only the answer to a new request says where the log ends.
    pub(crate) fn starts_afresh(&mut self) {
        self.fresh_after = self.asked;
    }

    /// Whether the store has answered a request made since the node last began to receive the channel:
    /// then nothing posted from now on is missed.
    pub(crate) fn is_verified(&self) -> bool {
        self.known.is_some()
            && self
                .answer
                .is_some_and(|answer| answer.ask > self.fresh_after)
    }

    /// Whether the tail is verified and also has everything that existed when the store answered:
    /// whatever arrives from now on is new.
    pub(crate) fn is_caught_up(&self) -> bool {
        self.known
            .is_some_and(|known| !self.is_of_another_log() && self.has_what_was_answered(known))
    }

    /// The same, if `known` is in the log's newest epoch.
    pub(crate) fn has_what_was_answered(&self, known: Position) -> bool {
        self.answer.is_some_and(|answer| {
            answer.ask > self.fresh_after
                && answer.position.epoch == self.newest_epoch()
                && answer.position.seq <= known.seq
        })
    }

    /// Whether the store no longer lists the epoch of what is known: the next answer cuts it back.
    pub(crate) fn is_of_another_log(&self) -> bool {
        let known = self.known.unwrap_or_default();
        known.epoch != self.newest_epoch() && Cut::by_unknown_epoch(&self.epochs, known).is_some()
    }

    /// Whether the last answer was about a different log than the list of epochs, and it is unknown which
    /// of the two is newer: the clock went back, or the answers arrived in another order.
    fn epochs_in_doubt(&self) -> bool {
        self.answer
            .is_some_and(|answer| answer.position.epoch != self.newest_epoch())
    }

    /// Whether an answer of the store is needed: something waits for it, or was discarded for lack of room
    /// and may be the last event of the log, or the log is a different one by now.
    pub(crate) fn needs_head(&self) -> bool {
        self.epoch_in_doubt
            || self.forgotten.is_some()
            || self.is_of_another_log()
            || self.epochs_in_doubt()
    }

    /// The position after which existing events are missing here, as far as is known.
    pub(crate) fn hole(&self) -> Option<Position> {
        let known = self.known.filter(|_| !self.is_of_another_log())?;
        let head = self.answer.map_or(0, |answer| answer.position.seq);
        let waiting = self.early.keys().any(|(seq, _)| *seq > known.seq);
        (head > known.seq || (waiting && !self.epoch_in_doubt)).then_some(known)
    }

    /// Takes an event from the broker.
    pub(crate) fn hear(&mut self, entry: Arc<Entry>) -> Heard {
        let Some(known) = self.known else {
            return self.wait(entry);
        };
        let position = entry.position;
        if self
            .epochs
            .last()
            .is_none_or(|last| position.epoch > last.epoch)
        {
            self.epoch_in_doubt = true;
            return self.wait(entry);
        }
        if self.is_of_another_log() {
            // What is known will be cut back, so the event cannot be compared with it.
            return self.wait(entry);
        }
        if position.seq <= known.seq || self.epoch_of(position.seq) != Some(position.epoch) {
            let named = |start: &EpochStart| start.epoch == position.epoch;
            // It is late, or the store's clock went back and this is another log.
            self.epoch_in_doubt |= !self.epochs.iter().any(named);
            self.compare(&entry);
            return Heard::Dropped;
        }
        if position.seq > known.seq + 1 {
            return self.wait(entry);
        }
        self.append(entry);
        self.append_waiting();
        Heard::Appended
    }

    /// The epoch in which the log has assigned this number, or will.
    fn epoch_of(&self, seq: Seq) -> Option<Epoch> {
        self.epochs
            .iter()
            .rev()
            .find(|start| start.from <= seq)
            .map(|start| start.epoch)
    }
}
