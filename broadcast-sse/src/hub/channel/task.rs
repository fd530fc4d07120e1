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
    /// By the broker.
    Live,
    /// By asking the store again and again, because the broker cannot be heard.
    Polling,
}

/// What a channel needs to have done.
pub(in crate::hub) enum Task {
    /// Ask the store for the head.
    Head(Claim),
    /// Fetch history after this number, to fill a hole.
    Page(Claim, Ask, Seq),
    /// Nothing, unless something happens or the time comes that the channel has named.
    Nothing,
}

/// The times that an [`Task`] depends on.
#[derive(Clone, Copy, Debug)]
pub(in crate::hub) struct Patience {
    /// How long an event may be late before history is asked for it.
    pub(in crate::hub) hole: Duration,
    /// How long a subscription may stay unconfirmed before the channel is polled.
    pub(in crate::hub) subscription: Duration,
}

/// A question that is asked for a channel. A channel has one at a time.
///
/// Dropped without an answer, because there was none or because whoever asked has panicked, it
/// gives the channel back: it asks again after a moment.
pub(in crate::hub) struct Claim {
    channel: Arc<Channel>,
    kind: Kind,
    answered: bool,
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
            answered: false,
        }
    }

    pub(in crate::hub) fn channel(&self) -> &Arc<Channel> {
        &self.channel
    }

    /// The store has answered.
    pub(in crate::hub) fn head(mut self, ask: Ask, head: &Head, now: Instant) {
        self.channel.answered(ask, head, now);
        self.answered = true;
    }

    /// The store cannot read where the log stands. It is asked again after a moment.
    pub(in crate::hub) fn damaged(self) {
        self.channel.head_is_damaged();
    }

    /// A page of history came. Says how many events it brought.
    pub(in crate::hub) fn page(mut self, ask: Ask, page: &Page, now: Instant) -> u64 {
        let brought = self.channel.fill(ask, page, now);
        self.answered = true;
        brought
    }

    /// Nobody wants to know it any more.
    pub(in crate::hub) fn give_up(mut self) {
        self.answered = true;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut state = self.channel.lock();
        state.under_way = false;
        if !self.answered {
            state.head_wanted |= self.kind == Kind::Head;
            state.pause(Instant::now());
        }
        self.channel.add_task(&mut state);
    }
}

impl Channel {
    /// What there is to do now. What is to be done later is noted.
    pub(in crate::hub) fn task(self: &Arc<Self>, patience: Patience, now: Instant) -> Task {
        let mut state = self.lock();
        state.listed = false;
        if state.alarm.is_some_and(|at| at <= now) {
            state.alarm = None;
        }
        if state.under_way || state.gone {
            // Its end is news of its own.
            return Task::Nothing;
        }
        let (task, next) = self.find_errand(&mut state, patience, now);
        if let Some(at) = next
            && state.alarm.is_none_or(|earlier| at < earlier)
        {
            let before = state.alarm.replace(at);
            self.shared.tasks.wake(self.id, at, before);
        }
        task
    }

    /// What there is to do now, or else when there may be something.
    fn find_errand(
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
            // Somebody may need a page that could not be read.
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
        // First what is missing for certain: its page says where the log stands as well.
        match state.tail.hole() {
            None => state.hole_since = None,
            Some(after) => {
                // While polling, the answer about the head is the news itself.
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

    /// The store could not be asked for this channel: for a moment nothing is asked.
    pub(in crate::hub) fn pause(&self, now: Instant) {
        let mut state = self.lock();
        state.pause(now);
        self.add_task(&mut state);
    }

    /// Looks where the subscription stands.
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
    /// Spread, for there may be many channels.
    fn pause(&mut self, now: Instant) {
        let pause = Duration::from_millis(rand::random_range(200..800));
        self.paused_until = Some(now + pause);
    }

    /// Whether a question is of no use yet.
    pub(super) fn is_paused(&self) -> bool {
        self.paused_until
            .is_some_and(|until| Instant::now() < until)
    }
}
