mod listeners;
mod task;
mod wakers;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once};
use std::time::Instant;

use chat_model::{ChannelId, Head};
use chat_mqtt::{Standing, Subscription};
use parking_lot::{Mutex, MutexGuard};

use super::entry::Entry;
use super::lag::Lag;
use super::reader::{Page, Reader, Step};
use super::tail::{Ask, Heard, Tail};
use super::task_queue::TaskQueue;
pub(super) use listeners::Left;
use task::Hearing;
pub(super) use task::{Claim, Patience, Task};
use wakers::Wakers;

/// What all channels of a node share.
#[derive(Default)]
pub(super) struct Shared {
    /// Bytes of all rings.
    pub(super) memory: AtomicUsize,
    pub(super) tasks: TaskQueue,
    pub(super) lag: Lag,
}

/// A channel that somebody listens to: its tail, and the wakers of its listeners.
///
/// One lock guards both, so a listener that looks and finds nothing is notified of whatever comes next.
/// Nothing is awaited while the lock is held.
pub(super) struct Channel {
    id: ChannelId,
    shared: Arc<Shared>,
    state: Mutex<State>,
}

/// There may be hundreds of thousands; `examples/idle_channels.rs` measures the cost of one.
struct State {
    tail: Tail,
    wakers: Wakers,
    /// `None` when the channel is gone.
    subscription: Option<Subscription>,
    /// The state of the subscription when it was last checked.
    standing: Option<Standing>,
    hearing: Hearing,
    /// Since when nobody has listened, while the channel lingers.
    idle_since: Option<Instant>,
    hole_since: Option<Instant>,
    answered_at: Option<Instant>,
    /// Until when the store is not asked again, because it did not answer.
    paused_until: Option<Instant>,
    /// When to check whether there is something to do.
    alarm: Option<Instant>,
    head_wanted: bool,
    /// Whether the store cannot read the head of the log.
    head_damaged: bool,
    /// Whether the channel is in the queue of those that have something to do.
    listed: bool,
    /// Whether a request to the store is under way.
    under_way: bool,
    /// Whether the node has forgotten it.
    gone: bool,
}

impl Channel {
    pub(super) fn new(
        id: ChannelId,
        tail: Tail,
        shared: Arc<Shared>,
        subscription: Option<Subscription>,
        now: Instant,
    ) -> Self {
        let state = State {
            tail,
            wakers: Wakers::None,
            subscription,
            standing: None,
            hearing: Hearing::NotYet { since: now },
            idle_since: None,
            hole_since: None,
            answered_at: None,
            paused_until: None,
            alarm: None,
            head_wanted: false,
            head_damaged: false,
            listed: false,
            under_way: false,
            gone: false,
        };
        Self {
            id,
            shared,
            state: Mutex::new(state),
        }
    }

    pub(super) fn id(&self) -> ChannelId {
        self.id
    }

    /// What comes next for a reader, and whether it is owed nothing, both under the same lock.
    pub(super) fn step(&self, reader: &mut Reader, room: usize) -> (Step, bool) {
        let mut state = self.lock();
        let step = match reader.step(&state.tail, room) {
            // The listener is notified when the pause is over.
            Step::NeedsPage(_) if state.is_paused() => Step::Waits,
            step => step,
        };
        if matches!(step, Step::NeedsHead) {
            self.want_head_of(&mut state);
        }
        let ready = reader.is_ready(&state.tail);
        (step, ready)
    }

    /// The number of the tail's last request to the store, and its generation.
    pub(super) fn mark(&self) -> (Ask, u64) {
        let state = self.lock();
        (state.tail.mark(), state.tail.generation())
    }

    /// Numbers a request to the store that is about to be sent.
    pub(super) fn ask(&self) -> Ask {
        self.lock().tail.ask()
    }

    /// Takes events of this channel from the broker. Calls `each` with what became of each.
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

    /// Takes the store's answer to a request.
    pub(super) fn answered(&self, ask: Ask, head: &Head, now: Instant) {
        self.change(|state| {
            state.answered_at = Some(now);
            state.head_damaged = false;
            self.look_for_older_copy(&state.tail, ask, head);
            state.tail.answer(ask, head)
        });
    }

    /// Notes that the store cannot read the head of the log, so that listeners do not wait for it.
    pub(super) fn head_is_damaged(&self) {
        self.change(|state| !std::mem::replace(&mut state.head_damaged, true));
    }

    /// Whether the head of the log is unknown because the store cannot read it.
    pub(super) fn is_damaged(&self) -> bool {
        self.lock().head_damaged
    }

    /// Whether nobody listens at this moment.
    pub(super) fn has_no_listener(&self) -> bool {
        self.lock().wakers.is_empty()
    }

    /// Tells the operator, once, that the store was replaced by an older copy without a new epoch.
    fn look_for_older_copy(&self, tail: &Tail, ask: Ask, head: &Head) {
        static SAID: Once = Once::new();
        if tail.goes_back(ask, head) {
            SAID.call_once(|| {
                tracing::error!(
                    channel = %self.id,
                    head = head.head,
                    "the store has fewer messages than it had, in the same epoch: an older copy was \
                     restored without `hark new-epoch`, and listeners may miss new messages; stop \
                     chat-service, run `hark new-epoch`, and start it again"
                );
            });
        }
    }

    /// Takes a page of history that was requested to fill a hole. Returns how many events only history
    /// had.
    pub(super) fn fill(&self, ask: Ask, page: &Page, now: Instant) -> u64 {
        let mut healed = 0;
        self.change(|state| {
            state.answered_at = Some(now);
            self.look_for_older_copy(&state.tail, ask, &page.head);
            let changed = state.tail.answer(ask, &page.head);
            let filled = state.tail.fill(&page.entries, &page.head);
            healed = filled.healed;
            if !filled.reaches_on {
                // What is missing may still be on its way. If not, the next page follows at once.
                state.hole_since = None;
            }
            changed || filled.reaches_on
        });
        healed
    }

    /// Takes a page of history that a listener needs. Notifies all listeners, because others may need it
    /// too.
    pub(super) fn page_came(&self, ask: Ask, page: &Page, now: Instant) {
        self.change(|state| {
            state.answered_at = Some(now);
            state.tail.answer(ask, &page.head);
            state.tail.extend_back(&page.entries);
            true
        });
    }

    /// Requests the head if the channel is polled or was last heard of before `before`. Returns how often
    /// there were two different events with one number since the last call.
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

    /// Requests the head.
    pub(super) fn want_head(&self) {
        self.want_head_of(&mut self.lock());
    }

    fn want_head_of(&self, state: &mut State) {
        if !state.head_wanted {
            state.head_wanted = true;
            self.add_task(state);
        }
    }

    /// Frees the older part of the ring.
    pub(super) fn shrink(&self) {
        self.change(|state| {
            let cost = state.tail.cost();
            // A quarter at a time, so that listeners that are close behind still find their events here.
            state.tail.shrink_to(cost - cost.div_ceil(4));
            false
        });
    }

    /// Queues the channel, so that maintenance checks whether there is something to do.
    fn add_task(&self, state: &mut State) {
        // If a request is under way, its end queues the channel.
        if !state.listed && !state.under_way && !state.gone {
            state.listed = true;
            self.shared.tasks.add(self.id);
        }
    }

    /// Changes the state, updates the memory account, and notifies the listeners if `change` returns true.
    fn change(&self, change: impl FnOnce(&mut State) -> bool) {
        let mut state = self.lock();
        let before = state.tail.cost();
        let known = state.tail.known();
        let ring = change(&mut state);
        let after = state.tail.cost();
        let memory = &self.shared.memory;
        if after >= before {
            memory.fetch_add(after - before, Ordering::Relaxed);
        } else {
            memory.fetch_sub(before - after, Ordering::Relaxed);
        }
        let tail = &state.tail;
        if tail.hole().is_some() || tail.needs_head() || !tail.is_verified() {
            self.add_task(&mut state);
        }
        if ring {
            state.wakers.notify();
        }
        let tail = &state.tail;
        if !state.wakers.is_empty() && tail.known() != known {
            let seq = known.map_or(0, |known| known.seq);
            self.shared.lag.handed_out(self.id, tail.above(seq));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        let cost = self.lock().tail.cost();
        self.shared.memory.fetch_sub(cost, Ordering::Relaxed);
    }
}
