mod forged;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use chat_model::{Cut, Epoch, EpochStart, Head, Position, Seq};

use super::entry::Entry;

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

/// The number of a question to the store; questions of one channel are numbered in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ask(u64);

/// What the store last said.
#[derive(Clone, Copy, Debug)]
struct Answer {
    ask: Ask,
    position: Position,
    first: Seq,
}

#[derive(Debug)]
struct Early {
    entry: Arc<Entry>,
    /// The number of the last question when it came.
    mark: Ask,
}

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
        let head = self.answer.map_or(0, |answer| answer.position.seq);
        let known = self.known.filter(|_| !self.is_of_another_log());
        self.is_verified() && known.is_some_and(|known| known.seq >= head)
    }

    /// Whether the store no longer names the epoch of what is known: the next answer cuts it back.
    fn is_of_another_log(&self) -> bool {
        let known = self.known.unwrap_or_default();
        Cut::by_unknown_epoch(&self.epochs, known).is_some()
    }

    /// Whether the store's word is needed: something waits for it, or was forgotten for want of
    /// room and may be the last of the log, or the log is another one by now.
    pub(crate) fn needs_head(&self) -> bool {
        self.epoch_in_doubt || self.forgotten.is_some() || self.is_of_another_log()
    }

    /// The position after which events are missing here that exist, as far as one can tell.
    pub(crate) fn hole(&self) -> Option<Position> {
        let known = self.known?;
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
        if position.seq <= known.seq || self.epoch_of(position.seq) != Some(position.epoch) {
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

    /// Whether an answer says less than the store itself has said before, in the same epoch: an
    /// older copy of it was put back, and has no new epoch. Nothing from the broker counts here.
    pub(crate) fn goes_back(&self, ask: Ask, head: &Head) -> bool {
        self.answer.is_some_and(|before| {
            ask > before.ask
                && head.epoch == before.position.epoch
                && head.head < before.position.seq
        })
    }

    /// The store answered the question numbered `ask`. Says whether listeners should look again.
    pub(crate) fn answer(&mut self, ask: Ask, head: &Head) -> bool {
        if self.answer.is_some_and(|answer| answer.ask >= ask) {
            return false;
        }
        self.answer = Some(Answer {
            ask,
            position: head.position(),
            first: head.first,
        });
        if self.forgotten.is_some_and(|forgotten| ask > forgotten) {
            self.forgotten = None;
        }
        let newer =
            head.epochs.last().map(|last| last.epoch) > self.epochs.last().map(|last| last.epoch);
        if newer || ask > self.epochs_mark {
            if self.epochs != head.epochs {
                self.generation += 1;
                self.epochs.clone_from(&head.epochs);
            }
            self.epochs_mark = self.asked;
        }
        let Some(known) = self.known else {
            self.reach(head.position());
            self.forget_what_does_not_exist(ask, head);
            self.append_waiting();
            return true;
        };
        let cut = if ask > self.known_mark {
            head.cut(known)
        } else {
            Cut::by_epoch(&self.epochs, known)
        };
        if let Some(cut) = cut {
            self.cut_back(cut);
        }
        self.forget_what_does_not_exist(ask, head);
        self.append_waiting();
        true
    }

    /// A page of history that was read after the position `after`, with the head at that moment
    /// already given to [`answer`](Self::answer). Says whether the ring has grown at its end.
    pub(crate) fn fill(&mut self, page: &[Arc<Entry>], head: &Head) -> bool {
        let Some(before) = self.known else {
            return false;
        };
        if head.first > before.seq + 1 && Cut::by_epoch(&head.epochs, before).is_none() {
            // What comes next has expired; whoever needs it learns so from history.
            self.clear_ring();
            let epoch = self.epoch_of(head.first - 1).unwrap_or(head.epoch);
            self.reach(Position::new(epoch, head.first - 1));
        }
        self.correct(page);
        for entry in page {
            let next = self.known.map_or(0, |known| known.seq + 1);
            if entry.seq() == next && self.epoch_of(next) == Some(entry.position.epoch) {
                self.append(entry.clone());
            }
        }
        self.append_waiting();
        self.known != Some(before)
    }

    /// Puts older events in front of the ring, as far as there is room.
    pub(crate) fn extend_back(&mut self, page: &[Arc<Entry>]) {
        self.correct(page);
        let Some(known) = self.known else { return };
        for entry in page.iter().rev() {
            let first = self.ring.front().map_or(known.seq + 1, |entry| entry.seq());
            if entry.seq() + 1 != first {
                continue;
            }
            let room = self.ring.len() < self.limits.ring_events
                && self.ring_cost + entry.cost() <= self.limits.ring_bytes;
            if !room || self.epoch_of(entry.seq()) != Some(entry.position.epoch) {
                return;
            }
            self.ring_cost += entry.cost();
            self.ring.push_front(entry.clone());
        }
    }

    /// The events after `seq`, if the ring reaches back that far.
    pub(crate) fn after(&self, seq: Seq) -> Option<impl Iterator<Item = &Arc<Entry>>> {
        let known = self.known?;
        let start = known.seq + 1 - self.ring.len() as Seq;
        let skip = (seq + 1).checked_sub(start)?;
        (seq <= known.seq).then(|| self.ring.iter().skip(skip as usize))
    }

    /// The events in the ring above `seq`, newest first.
    pub(crate) fn above(&self, seq: Seq) -> impl Iterator<Item = &Arc<Entry>> {
        let newest_first = self.ring.iter().rev();
        newest_first.take_while(move |entry| entry.seq() > seq)
    }

    /// Whether the store, asked after `mark`, has proved that a position known at `mark` was cut
    /// off; and to where.
    pub(crate) fn proven_cut(&self, position: Position, mark: Ask) -> Option<Cut> {
        let answer = self.answer.filter(|answer| answer.ask > mark)?;
        Cut::by_unknown_epoch(&self.epochs, position).or_else(|| {
            let beyond = position.seq > answer.position.seq;
            beyond.then_some(Cut {
                kept: answer.position,
            })
        })
    }

    /// Whether a question asked after `mark` has been answered.
    pub(crate) fn answered_since(&self, mark: Ask) -> bool {
        self.answer.is_some_and(|answer| answer.ask > mark)
    }

    /// Gives memory back until at most `cost` bytes are left; all of it is in history as well.
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
    }

    fn drop_oldest(&mut self) {
        if let Some(entry) = self.ring.pop_front() {
            self.ring_cost -= entry.cost();
        }
    }

    /// The epoch in which the log gave out this number, or will.
    fn epoch_of(&self, seq: Seq) -> Option<Epoch> {
        self.epochs
            .iter()
            .rev()
            .find(|start| start.from <= seq)
            .map(|start| start.epoch)
    }

    fn wait(&mut self, entry: Arc<Entry>) -> Heard {
        let key = (entry.seq(), entry.position.epoch);
        let mut fits = self.early_cost + entry.cost() <= self.limits.ring_bytes;
        if let Some(twin) = self.early.remove(&key) {
            self.early_cost -= twin.entry.cost();
            if twin.entry.contradicts(&entry) {
                // Neither is believed: history knows.
                self.contradictions += 1;
                fits = false;
            }
        }
        if fits {
            self.early_cost += entry.cost();
            let mark = self.asked;
            self.early.insert(key, Early { entry, mark });
        } else {
            // It is in history as well.
            self.forgotten = Some(self.asked);
        }
        Heard::Waits
    }

    fn append(&mut self, entry: Arc<Entry>) {
        self.reach(entry.position);
        self.ring_cost += entry.cost();
        self.ring.push_back(entry);
        while self.ring.len() > self.limits.ring_events || self.ring_cost > self.limits.ring_bytes {
            self.drop_oldest();
        }
    }

    fn append_waiting(&mut self) {
        let Some(mut known) = self.known else { return };
        while let Some(waiting) = self.early.first_entry() {
            let (seq, epoch) = *waiting.key();
            if seq > known.seq + 1 {
                break;
            }
            if self.epochs.last().is_none_or(|last| epoch > last.epoch) {
                // Its epoch is still in doubt: it must not stand in the way of the others.
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
    fn fitting(&mut self, seq: Seq) -> Option<Arc<Entry>> {
        let entry = self.early.remove(&(seq, self.epoch_of(seq)?))?.entry;
        self.early_cost -= entry.cost();
        Some(entry)
    }

    /// Drops what waits and cannot exist: it came before the question was asked, and the store's
    /// answer does not have it. A commit comes before its publication.
    fn forget_what_does_not_exist(&mut self, ask: Ask, head: &Head) {
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

    fn cut_back(&mut self, cut: Cut) {
        self.generation += 1;
        while self
            .ring
            .back()
            .is_some_and(|entry| entry.seq() > cut.kept.seq)
        {
            let entry = self.ring.pop_back().expect("it was just seen");
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

    fn clear_ring(&mut self) {
        self.ring.clear();
        self.ring_cost = 0;
    }

    fn reach(&mut self, position: Position) {
        self.known = Some(position);
        self.known_mark = self.asked;
    }
}
