use std::{
    sync::{
        Arc, Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use chat_model::{ChannelId, Head, Seq};
use slab::Slab;
use tokio::sync::Notify;

use super::{
    bell::Bell,
    entry::Entry,
    lag::Lag,
    seat::{Page, Seat, Start, Step},
    tail::{Ask, Heard, Tail},
};

/// A channel that somebody listens to: its tail, and the bells of its listeners.
///
/// One lock guards both, so a listener that looks and finds nothing is rung by whatever comes
/// next. Nothing is awaited under it.
pub(super) struct Channel {
    id: ChannelId,
    state: Mutex<State>,
    /// Rung when the attendant has something to do.
    errand: Notify,
    /// Bytes of all rings of the node.
    memory: Arc<AtomicUsize>,
    lag: Lag,
}

struct State {
    tail: Tail,
    bells: Slab<Arc<dyn Bell>>,
    /// Since when nobody listens.
    idle_since: Option<Instant>,
    hearing: Hearing,
    head_wanted: bool,
    hole_since: Option<Instant>,
    answered_at: Option<Instant>,
}

/// How the channel's events reach this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hearing {
    /// Not yet: the broker has not confirmed the subscription.
    NotYet {
        /// Since when.
        since: Instant,
    },
    /// By the broker.
    Live,
    /// By asking the store again and again, because the broker cannot be heard.
    Polling,
}

/// What a channel needs from its attendant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    /// Ask the store for the head.
    Head(Ask),
    /// Fetch history after this number, to fill a hole.
    Page(Ask, Seq),
    /// Nothing before this moment, if nothing happens.
    Nothing(Option<Instant>),
    /// Nobody has listened for long.
    Leave,
}

/// The times that an [`Errand`] depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// How long an event may be late before history is asked for it.
    pub(super) hole: Duration,
    /// How long a subscription may stay unconfirmed before the channel is polled.
    pub(super) subscription: Duration,
    /// How long a channel without listeners stays.
    pub(super) linger: Duration,
}

impl Channel {
    pub(super) fn new(
        id: ChannelId,
        tail: Tail,
        memory: Arc<AtomicUsize>,
        lag: Lag,
        now: Instant,
    ) -> Self {
        let state = State {
            tail,
            bells: Slab::new(),
            idle_since: Some(now),
            hearing: Hearing::NotYet { since: now },
            head_wanted: false,
            hole_since: None,
            answered_at: None,
        };
        Self {
            id,
            state: Mutex::new(state),
            errand: Notify::new(),
            memory,
            lag,
        }
    }

    pub(super) fn id(&self) -> ChannelId {
        self.id
    }

    /// Takes a bell in and gives its listener a seat.
    pub(super) fn join(&self, bell: Arc<dyn Bell>, start: Start) -> (usize, Seat) {
        let mut state = self.lock();
        state.idle_since = None;
        let seat = Seat::new(self.id, start, state.tail.mark());
        (state.bells.insert(bell), seat)
    }

    /// Takes the bell out again.
    pub(super) fn leave(&self, bell: usize, now: Instant) {
        let mut state = self.lock();
        state.bells.remove(bell);
        if state.bells.is_empty() {
            state.idle_since = Some(now);
            self.errand.notify_one();
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.lock().bells.is_empty()
    }

    /// What comes next for a seat; whether it is owed nothing is looked up under the same lock.
    pub(super) fn step(&self, seat: &mut Seat, room: usize) -> (Step, bool) {
        let mut state = self.lock();
        let step = seat.step(&state.tail, room);
        if matches!(step, Step::NeedsHead) {
            self.want_head_of(&mut state);
        }
        let ready = seat.is_ready(&state.tail);
        (step, ready)
    }

    /// The tail's last question and its generation.
    pub(super) fn mark(&self) -> (Ask, u64) {
        let state = self.lock();
        (state.tail.mark(), state.tail.generation())
    }

    /// Numbers a question that is about to be sent.
    pub(super) fn ask(&self) -> Ask {
        self.lock().tail.ask()
    }

    /// Events came from the broker, all of this channel. Says what became of each.
    pub(super) fn hear(&self, entries: impl Iterator<Item = Entry>, mut each: impl FnMut(Heard)) {
        self.change(|state| {
            let mut grown = false;
            for entry in entries {
                let heard = state.tail.hear(Arc::new(entry));
                grown |= heard == Heard::Appended;
                each(heard);
            }
            grown
        });
    }

    /// The store answered a question.
    pub(super) fn answered(&self, ask: Ask, head: &Head, now: Instant) {
        self.change(|state| {
            state.answered_at = Some(now);
            self.look_for_older_copy(&state.tail, ask, head);
            state.tail.answer(ask, head)
        });
    }

    /// Tells the operator, once, of a store that went back behind everybody's back.
    fn look_for_older_copy(&self, tail: &Tail, ask: Ask, head: &Head) {
        static SAID: Once = Once::new();
        if tail.goes_back(ask, head) {
            SAID.call_once(|| {
                tracing::error!(
                    channel = %self.id,
                    head = head.head,
                    "the store has fewer messages than it had, in the same epoch: an older copy was \
                     put back without `hark new-epoch`, and listeners may miss new messages; stop \
                     chat-service, give it one, and start it again"
                );
            });
        }
    }

    /// A page of history came that was asked for to fill a hole. Says how many events it brought.
    pub(super) fn fill(&self, ask: Ask, page: &Page, now: Instant) -> u64 {
        let mut brought = 0;
        self.change(|state| {
            state.answered_at = Some(now);
            self.look_for_older_copy(&state.tail, ask, &page.head);
            let changed = state.tail.answer(ask, &page.head);
            let before = state.tail.known();
            let grown = state.tail.fill(&page.entries, &page.head);
            let seq = |known: Option<chat_model::Position>| known.map_or(0, |known| known.seq);
            brought = seq(state.tail.known()).saturating_sub(seq(before));
            if brought == 0 {
                // What is missing may still be on its way; else the next page follows at once.
                state.hole_since = None;
            }
            changed || grown
        });
        brought
    }

    /// A page of history came that a listener needs. Rings everybody: others may need it too.
    pub(super) fn page_came(&self, ask: Ask, page: &Page, now: Instant) {
        self.change(|state| {
            state.answered_at = Some(now);
            state.tail.answer(ask, &page.head);
            state.tail.extend_back(&page.entries);
            true
        });
    }

    /// Rings everybody.
    pub(super) fn ring(&self) {
        self.change(|_| true);
    }

    /// The subscription's standing has changed.
    pub(super) fn hearing(&self, hearing: Hearing) {
        self.change(|state| {
            state.hearing = hearing;
            if !matches!(hearing, Hearing::NotYet { .. }) {
                state.tail.starts_afresh();
            }
            false
        });
    }

    /// Has the head asked for, if the channel is polled or was last heard of before `before`. Says
    /// how often there were two different events of one number since the last time.
    pub(super) fn check(&self, everybody: bool, before: Instant) -> u32 {
        let mut state = self.lock();
        let due = everybody
            || state.hearing == Hearing::Polling
            || state.answered_at.is_some_and(|at| at < before);
        if due {
            self.want_head_of(&mut state);
        }
        state.tail.take_contradictions()
    }

    /// Has the head asked for.
    pub(super) fn want_head(&self) {
        self.want_head_of(&mut self.lock());
    }

    fn want_head_of(&self, state: &mut State) {
        if !state.head_wanted {
            state.head_wanted = true;
            self.errand.notify_one();
        }
    }

    /// Gives back the older part of the ring.
    pub(super) fn shrink(&self) {
        self.change(|state| {
            let cost = state.tail.cost();
            // A quarter at a time: who reads along closely still finds its events here.
            state.tail.shrink_to(cost - cost.div_ceil(4));
            false
        });
    }

    /// What there is to do now.
    pub(super) fn errand(&self, patience: Patience, now: Instant) -> Errand {
        let mut state = self.lock();
        if let Hearing::NotYet { since } = state.hearing
            && now >= since + patience.subscription
        {
            state.hearing = Hearing::Polling;
            state.tail.starts_afresh();
        }
        let mut next = None;
        let mut at = |moment: Instant| {
            next = Some(next.map_or(moment, |earlier: Instant| earlier.min(moment)));
        };
        if let Some(since) = state.idle_since {
            if now >= since + patience.linger {
                return Errand::Leave;
            }
            at(since + patience.linger);
        }
        if let Hearing::NotYet { since } = state.hearing {
            at(since + patience.subscription);
        }
        // First what is missing for certain: its page says where the log stands as well.
        match state.tail.hole() {
            None => state.hole_since = None,
            Some(after) => {
                // While polling, the answer about the head is the news itself.
                let live = state.hearing == Hearing::Live;
                let patience = if live { patience.hole } else { Duration::ZERO };
                let since = *state.hole_since.get_or_insert(now);
                if now >= since + patience {
                    return Errand::Page(state.tail.ask(), after.seq);
                }
                at(since + patience);
            }
        }
        let heard = !matches!(state.hearing, Hearing::NotYet { .. });
        let unverified = heard && !state.tail.is_verified();
        if unverified || state.head_wanted || state.tail.needs_head() {
            state.head_wanted = false;
            return Errand::Head(state.tail.ask());
        }
        Errand::Nothing(next)
    }

    /// Waits until there may be something to do.
    pub(super) async fn errand_changed(&self) {
        self.errand.notified().await;
    }

    /// Changes the state, keeps the account of memory, and rings the bells if `change` says so.
    fn change(&self, change: impl FnOnce(&mut State) -> bool) {
        let mut state = self.lock();
        let before = state.tail.cost();
        let known = state.tail.known();
        let ring = change(&mut state);
        let after = state.tail.cost();
        if after >= before {
            self.memory.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.memory.fetch_sub(before - after, Ordering::Relaxed);
        }
        if ring {
            for (_, bell) in &state.bells {
                bell.ring();
            }
        }
        if !state.bells.is_empty() && state.tail.known() != known {
            let seq = known.map_or(0, |known| known.seq);
            self.lag.handed_out(self.id, state.tail.above(seq));
        }
        let busy =
            state.tail.hole().is_some() || state.tail.needs_head() || !state.tail.is_verified();
        drop(state);
        if busy {
            self.errand.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way through a change that another could not go on from.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        let cost = self.lock().tail.cost();
        self.memory.fetch_sub(cost, Ordering::Relaxed);
    }
}
