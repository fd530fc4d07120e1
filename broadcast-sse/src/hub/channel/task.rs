use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chat_model::{Head, Seq};
use chat_mqtt::Standing;

use super::{Channel, State};
use crate::hub::reader::Page;
use crate::hub::tail::Ask;

/// How the channel's events reach this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::hub) enum Hearing {
    /// Not yet: the broker has not confirmed the subscription.
    NotYet {
        /// Since when.
        since: Instant,
    },
    /// Through the broker.
    Live,
    /// By polling the store, because nothing arrives from the broker.
    Polling,
}

/// What must be done for a channel.
pub(in crate::hub) enum Task {
    /// Ask the store for the head.
    Head(Claim),
    /// Fetch history after this number, to fill a hole.
    Page(Claim, Ask, Seq),
    /// Nothing, until something happens or the time comes that the channel has set.
    Nothing,
}

/// The times that a [`Task`] depends on.
#[derive(Clone, Copy, Debug)]
pub(in crate::hub) struct Patience {
    /// How long an event may be late before it is requested from history.
    pub(in crate::hub) hole: Duration,
    /// How long a subscription may stay unconfirmed before the channel is polled.
    pub(in crate::hub) subscription: Duration,
}

/// How many milliseconds a channel waits before it asks again when it got no answer.
const A_MOMENT: Range<u64> = 200..800;

/// The same when there was no room for its request.
const A_WHILE: Range<u64> = 5_000..15_000;

/// A request to the store for a channel. A channel has one at a time.
///
/// If it is dropped without an answer, because none came or because the task panicked, the channel may
/// make a new request after a moment.
pub(in crate::hub) struct Claim {
    channel: Arc<Channel>,
    kind: Kind,
    /// When the channel asks again: after a time within this range, in milliseconds. `None` if it need not.
    asked_again: Option<Range<u64>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Head,
    Page,
}

impl Claim {
    fn new(channel: &Arc<Channel>, kind: Kind) -> Self {
        Self {
            channel: channel.clone(),
            kind,
            asked_again: Some(A_MOMENT),
        }
    }

    pub(in crate::hub) fn channel(&self) -> &Arc<Channel> {
        &self.channel
    }

    /// Takes the store's answer.
    pub(in crate::hub) fn head(mut self, ask: Ask, head: &Head, now: Instant) {
        self.channel.answered(ask, head, now);
        self.asked_again = None;
    }

    /// Notes that the store cannot read the head of the log. It is asked again after a moment.
    pub(in crate::hub) fn damaged(self) {
        self.channel.head_is_damaged();
    }

    /// Takes a page of history. Returns how many events only history had.
    pub(in crate::hub) fn page(mut self, ask: Ask, page: &Page, now: Instant) -> u64 {
        let healed = self.channel.fill(ask, page, now);
        self.asked_again = None;
        healed
    }

    /// Ends the request because nobody needs the answer any longer.
    pub(in crate::hub) fn give_up(mut self) {
        self.asked_again = None;
    }

    /// Ends the request because too many wait already. With so many channels, each asks again only after
    /// some seconds.
    pub(in crate::hub) fn put_off(mut self) {
        self.asked_again = Some(A_WHILE);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut state = self.channel.lock();
        state.under_way = false;
        if let Some(pause) = self.asked_again.take() {
            state.head_wanted |= self.kind == Kind::Head;
            state.pause(Instant::now(), pause);
        }
        self.channel.add_task(&mut state);
    }
}

impl Channel {
    /// What must be done now. What must be done later is noted.
    pub(in crate::hub) fn task(self: &Arc<Self>, patience: Patience, now: Instant) -> Task {
        let mut state = self.lock();
        state.listed = false;
        if state.alarm.is_some_and(|at| at <= now) {
            state.alarm = None;
        }
        if state.under_way || state.gone {
            // The end of the request queues the channel again.
            return Task::Nothing;
        }
        let (task, next) = self.find_task(&mut state, patience, now);
        if let Some(at) = next
            && state.alarm.is_none_or(|earlier| at < earlier)
        {
            let before = state.alarm.replace(at);
            self.shared.tasks.wake(self.id, at, before);
        }
        task
    }

    /// What must be done now, or when there may be something to do.
    fn find_task(
        self: &Arc<Self>,
        state: &mut State,
        patience: Patience,
        now: Instant,
    ) -> (Task, Option<Instant>) {
        if let Some(until) = state.paused_until {
            if now < until {
                return (Task::Nothing, Some(until));
            }
            state.paused_until = None;
            // A listener may need a page that could not be read.
            state.wakers.notify();
        }
        let mut next = None;
        let mut at = |moment: Instant| {
            next = Some(next.map_or(moment, |earlier: Instant| earlier.min(moment)));
        };
        if let Hearing::NotYet { since } = state.hearing {
            if now >= since + patience.subscription {
                state.hearing = Hearing::Polling;
                state.tail.starts_afresh();
            } else {
                at(since + patience.subscription);
            }
        }
        // First fetch what is certainly missing: that page also brings the head of the log.
        match state.tail.hole() {
            None => state.hole_since = None,
            Some(after) => {
                // While polling, the answer with the head is the only news.
                let live = state.hearing == Hearing::Live;
                let patience = if live { patience.hole } else { Duration::ZERO };
                let since = *state.hole_since.get_or_insert(now);
                if now >= since + patience {
                    state.under_way = true;
                    let claim = Claim::new(self, Kind::Page);
                    return (Task::Page(claim, state.tail.ask(), after.seq), next);
                }
                at(since + patience);
            }
        }
        let heard = !matches!(state.hearing, Hearing::NotYet { .. });
        let unverified = heard && !state.tail.is_verified();
        if unverified || state.head_wanted || state.tail.needs_head() {
            state.head_wanted = false;
            state.under_way = true;
            return (Task::Head(Claim::new(self, Kind::Head)), next);
        }
        (Task::Nothing, next)
    }

    /// Pauses requests for a moment, because the store could not be asked for this channel.
    pub(in crate::hub) fn pause(&self, now: Instant) {
        let mut state = self.lock();
        state.pause(now, A_MOMENT);
        self.add_task(&mut state);
    }

    /// Checks the state of the subscription.
    pub(in crate::hub) fn follow_subscription(&self, now: Instant) {
        let mut state = self.lock();
        let Some(subscription) = &state.subscription else {
            return;
        };
        let standing = subscription.standing();
        if state.standing.replace(standing) == Some(standing) {
            return;
        }
        state.hearing = match standing {
            Standing::Pending => Hearing::NotYet { since: now },
            Standing::Live { .. } => Hearing::Live,
            Standing::BrokerAway { .. } => Hearing::Polling,
        };
        if standing != Standing::Pending {
            state.tail.starts_afresh();
        }
        self.add_task(&mut state);
    }
}

impl State {
    /// Pauses requests, for a random time because there may be many channels.
    fn pause(&mut self, now: Instant, millis: Range<u64>) {
        let pause = Duration::from_millis(rand::random_range(millis));
        self.paused_until = Some(now + pause);
    }

    /// Whether requests are paused.
    pub(super) fn is_paused(&self) -> bool {
        self.paused_until
            .is_some_and(|until| Instant::now() < until)
    }
}
