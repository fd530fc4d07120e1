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
/// Pure: it is told what came from the broker and from the store, in whatever order, and keeps a
/// contiguous ring of events that ends at [`known`](Self::known). Its rules:
///
/// - An event at or below `known` is dropped, the next one is appended, one further ahead waits
///   until the hole before it is filled from history.
/// - An epoch not heard of before is believed only when the store names it.
/// - Every question to the store has a number. An answer proves that the log was cut back only
///   if its question was asked after what it contradicts was known.
#[derive(Debug)]
pub(crate) struct Tail {
    limits: TailLimits,
    /// Up to where the log is known; `None` until the store was first asked.
    known: Option<Position>,
    /// The number of the last question when `known` last moved.
    known_mark: Ask,
    epochs: Vec<EpochStart>,
    epochs_mark: Ask,
    /// Contiguous, ending at `known`.
    ring: VecDeque<Arc<Entry>>,
    ring_cost: usize,
    /// Events that cannot be appended yet.
    early: BTreeMap<(Seq, Epoch), Early>,
    early_cost: usize,
    /// The number of the last question.
    asked: Ask,
    answer: Option<Answer>,
    /// The answers to later questions than this one count for whoever joins.
    fresh_after: Ask,
    /// Whether an event of an unknown epoch waits for the store's word.
    epoch_in_doubt: bool,
    /// The number of the last question when an event was forgotten for want of room.
    forgotten: Option<Ask>,
    generation: u64,
    /// How often there were two different events of one number.
    contradictions: u32,
}

/// Bounds of one channel's memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TailLimits {
    /// Most events in the ring.
    pub(crate) ring_events: usize,
    /// Most bytes in the ring, and as much again in what waits for a hole to be filled.
    pub(crate) ring_bytes: usize,
}

/// The number of a question to the store; questions of one channel are numbered in order. There is
/// no more than one a second or so: they last for a century.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ask(u32);

/// What became of an event from the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The ring has grown.
    Appended,
    /// It was known already, or belongs to a part of the log that is gone.
    Dropped,
    /// It waits for those before it, or for the store's word about its epoch.
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

    /// Up to where the log is known; `None` until the store first answered.
    pub(crate) fn known(&self) -> Option<Position> {
        self.known
    }

    /// The epochs of the log, oldest first.
    pub(crate) fn epochs(&self) -> &[EpochStart] {
        &self.epochs
    }

    /// The newest of them. A channel without a log is epoch 0, which needs nobody's word.
    pub(crate) fn newest_epoch(&self) -> Epoch {
        self.epochs.last().map_or(Epoch::ZERO, |last| last.epoch)
    }

    /// Grows whenever a part of the log may have gone: pages asked for before are no longer good.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// The oldest number that the store kept when it last answered.
    pub(crate) fn first(&self) -> Seq {
        self.answer.map_or(1, |answer| answer.first)
    }

    /// The number of the last question: what is known now was known before the next one.
    pub(crate) fn mark(&self) -> Ask {
        self.asked
    }

    /// Bytes of the ring and of what waits.
    pub(crate) fn cost(&self) -> usize {
        self.ring_cost + self.early_cost
    }

    /// Numbers a question that is about to be sent.
    pub(crate) fn ask(&mut self) -> Ask {
        self.asked.0 += 1;
        self.asked
    }

    /// From now on the node hears the channel anew (or knows that it cannot): only an answer to a
    /// question asked from here on says where it stands.
    pub(crate) fn starts_afresh(&mut self) {
        self.fresh_after = self.asked;
    }

    /// Whether the store has answered a question asked since the node last began to hear the
    /// channel: then nothing that is posted from now on is missed.
    pub(crate) fn is_verified(&self) -> bool {
        self.known.is_some()
            && self
                .answer
                .is_some_and(|answer| answer.ask > self.fresh_after)
    }

    /// Whether, beyond being verified, everything is here that existed when the store answered:
    /// what comes from now on is new.
    pub(crate) fn is_caught_up(&self) -> bool {
        self.known
            .is_some_and(|known| !self.is_of_another_log() && self.has_what_was_answered(known))
    }

    /// The same, if what is `known` is of the log's newest epoch.
    pub(crate) fn has_what_was_answered(&self, known: Position) -> bool {
        self.answer.is_some_and(|answer| {
            answer.ask > self.fresh_after
                && answer.position.epoch == self.newest_epoch()
                && answer.position.seq <= known.seq
        })
    }

    /// Whether the store no longer names the epoch of what is known: the next answer cuts it back.
    pub(crate) fn is_of_another_log(&self) -> bool {
        let known = self.known.unwrap_or_default();
        known.epoch != self.newest_epoch() && Cut::by_unknown_epoch(&self.epochs, known).is_some()
    }

    /// Whether the last answer was of another log than the list of epochs, and nothing tells which
    /// of the two is the newer one: the clock went back, or the answers came in another order.
    fn epochs_in_doubt(&self) -> bool {
        self.answer
            .is_some_and(|answer| answer.position.epoch != self.newest_epoch())
    }

    /// Whether the store's word is needed: something waits for it, or was forgotten for want of
    /// room and may be the last of the log, or the log is another one by now.
    pub(crate) fn needs_head(&self) -> bool {
        self.epoch_in_doubt
            || self.forgotten.is_some()
            || self.is_of_another_log()
            || self.epochs_in_doubt()
    }

    /// The position after which events are missing here that exist, as far as one can tell.
    pub(crate) fn hole(&self) -> Option<Position> {
        let known = self.known.filter(|_| !self.is_of_another_log())?;
        let head = self.answer.map_or(0, |answer| answer.position.seq);
        let waiting = self.early.keys().any(|(seq, _)| *seq > known.seq);
        (head > known.seq || (waiting && !self.epoch_in_doubt)).then_some(known)
    }

    /// An event came from the broker.
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
            // What is known will be cut back, and cannot be compared with.
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

    /// The epoch in which the log gave out this number, or will.
    fn epoch_of(&self, seq: Seq) -> Option<Epoch> {
        self.epochs
            .iter()
            .rev()
            .find(|start| start.from <= seq)
            .map(|start| start.epoch)
    }
}
