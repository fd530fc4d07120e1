mod asks;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use chat_model::ChannelId;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Standing;
use crate::Backoff;
use asks::Asks;

/// What is subscribed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Filter {
    /// All channels.
    Wildcard,
    /// One channel.
    Channel(ChannelId),
    /// The publishers' heartbeats.
    Heartbeat,
}

/// What one connection is to be subscribed to, and how far the broker has been told.
///
/// This is the truth; a broker's idea of it is made equal to it, from nothing after every
/// reconnect. Pure: it sends nothing and has no clock.
#[derive(Debug)]
pub(super) struct Registry {
    entries: HashMap<Filter, Entry>,
    linger: Duration,
    /// Waiting for their SUBSCRIBE, in their order.
    queue: BTreeMap<u64, Filter>,
    last_queued: u64,
    /// Entries without watchers that the broker was told of, by the time until which they stay.
    leaving: BTreeSet<(Instant, Filter)>,
    /// Before this moment no UNSUBSCRIBE is sent that is not full.
    unsubscribe_from: Option<Instant>,
    retries: BTreeSet<(Instant, Filter)>,
    /// Those whose last answer was a refusal.
    refused: BTreeSet<Filter>,
    asks: Asks,
    news: News,
    connected: bool,
    generation: u64,
}

/// There may be a hundred thousand: what few of them need is made when it is needed.
#[derive(Debug)]
struct Entry {
    watchers: u32,
    told: Told,
    standing: Standing,
    /// Its place in `leaving`.
    stays_until: Option<Instant>,
    /// Made for the first who wants to wait for a standing of this filter alone.
    state: Option<watch::Sender<Standing>>,
    /// Made by the first refusal.
    refused: Option<Box<Backoff>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    /// In `queue`, at this place.
    Queued(u64),
    /// Asked for, by the ask with this number; an answer to another one does not count.
    Asked(u64),
    Subscribed,
    Refused,
}

/// The filters whose standing has changed since it was last asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    /// All of them.
    pub(super) all: bool,
    /// These.
    pub(super) filters: HashSet<Filter>,
}

/// What one SUBACK brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answered {
    pub(super) subscribed: usize,
    pub(super) refused: Vec<Filter>,
}

/// How long UNSUBSCRIBEs are collected, unless one is full before: who opens streams and closes
/// them at once costs the broker few packets.
const COLLECT: Duration = Duration::from_millis(100);

impl Registry {
    pub(super) fn new(linger: Duration) -> Self {
        Self {
            entries: HashMap::new(),
            linger,
            queue: BTreeMap::new(),
            last_queued: 0,
            leaving: BTreeSet::new(),
            unsubscribe_from: None,
            retries: BTreeSet::new(),
            refused: BTreeSet::new(),
            asks: Asks::default(),
            news: News::default(),
            connected: false,
            generation: 0,
        }
    }

    /// One more watcher.
    pub(super) fn watch(&mut self, filter: Filter) {
        if let Some(entry) = self.entries.get_mut(&filter) {
            entry.watchers += 1;
            if let Some(at) = entry.stays_until.take() {
                self.leaving.remove(&(at, filter));
            }
            return;
        }
        let (standing, told) = if self.connected {
            (Standing::Pending, self.enqueue(filter))
        } else {
            let generation = self.generation;
            (Standing::BrokerAway { generation }, Told::Nothing)
        };
        let entry = Entry {
            watchers: 1,
            told,
            standing,
            stays_until: None,
            state: None,
            refused: None,
        };
        self.entries.insert(filter, entry);
    }

    /// Where a filter stands; `None` if nobody watches it.
    pub(super) fn standing(&self, filter: Filter) -> Option<Standing> {
        self.entries.get(&filter).map(|entry| entry.standing)
    }

    /// The same, now and from now on.
    pub(super) fn state(&mut self, filter: Filter) -> Option<watch::Receiver<Standing>> {
        let entry = self.entries.get_mut(&filter)?;
        let standing = entry.standing;
        let state = entry
            .state
            .get_or_insert_with(|| watch::Sender::new(standing));
        Some(state.subscribe())
    }

    /// What has changed since this was last asked. Whoever begins to watch looks for himself.
    pub(super) fn take_news(&mut self) -> News {
        std::mem::take(&mut self.news)
    }

    /// One watcher less. After the last, what the broker was told of stays for the linger if it
    /// `lingers`, and else until the next UNSUBSCRIBE; what it was not told of is gone.
    pub(super) fn leave(&mut self, filter: Filter, lingers: bool, now: Instant) {
        let Some(entry) = self.entries.get_mut(&filter) else {
            return;
        };
        entry.watchers = entry.watchers.saturating_sub(1);
        if entry.watchers > 0 {
            return;
        }
        if !matches!(entry.told, Told::Asked(_) | Told::Subscribed) {
            self.remove(filter);
            return;
        }
        let until = if lingers { now + self.linger } else { now };
        entry.stays_until = Some(until);
        self.leaving.insert((until, filter));
    }

    /// How many filters the broker refuses now, and one of them.
    pub(super) fn refused(&self) -> Option<(usize, Filter)> {
        let first = self.refused.first()?;
        Some((self.refused.len(), *first))
    }

    /// How many filters are wanted, lingering ones included.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// A new connection: the broker knows nothing of us.
    pub(super) fn connected(&mut self) {
        self.connected = true;
        self.news.all = true;
        for (filter, entry) in &mut self.entries {
            self.last_queued += 1;
            self.queue.insert(self.last_queued, *filter);
            entry.told = Told::Queued(self.last_queued);
            entry.set(Standing::Pending);
        }
    }

    /// The connection is gone, and with it all that the broker was told.
    pub(super) fn disconnected(&mut self) {
        self.connected = false;
        self.news.all = true;
        self.news.filters.clear();
        self.queue.clear();
        self.leaving.clear();
        self.retries.clear();
        self.refused.clear();
        self.asks.clear();
        self.entries.retain(|_, entry| entry.watchers > 0);
        self.generation += 1;
        let generation = self.generation;
        for entry in self.entries.values_mut() {
            entry.told = Told::Nothing;
            entry.set(Standing::BrokerAway { generation });
        }
    }

    /// Does what has come due: refused filters are to be asked for again.
    pub(super) fn tick(&mut self, now: Instant) {
        while let Some((at, filter)) = self.retries.first().copied() {
            if at > now {
                break;
            }
            self.retries.pop_first();
            let told = self.entries.get(&filter).map(|entry| entry.told);
            if told == Some(Told::Refused) {
                let told = self.enqueue(filter);
                self.entries.entry(filter).and_modify(|e| e.told = told);
            }
        }
    }

    /// When there is something to do that is not due yet.
    pub(super) fn next_tick(&self) -> Option<Instant> {
        let leaving = self.leaving.first().map(|(at, _)| *at);
        let leaving = leaving.map(|at| self.unsubscribe_from.map_or(at, |from| at.max(from)));
        let retry = self.retries.first().map(|(at, _)| *at);
        leaving.into_iter().chain(retry).min()
    }

    /// Since when a SUBSCRIBE has been without an answer, and none has come for another.
    pub(super) fn unanswered_since(&self) -> Option<Instant> {
        self.asks.unanswered_since()
    }

    /// Gives all unanswered SUBSCRIBEs their time anew: while reading was paused, answers could not
    /// be seen.
    pub(super) fn excuse_silence(&mut self, now: Instant) {
        self.asks.excuse_silence(now);
    }

    /// Up to `max` filters for the next UNSUBSCRIBE, with its packet id. To be sent before what
    /// [`next_subscribe`](Self::next_subscribe) gives: a filter may be in both.
    pub(super) fn next_unsubscribe(
        &mut self,
        max: usize,
        now: Instant,
    ) -> Option<(u16, Vec<Filter>)> {
        let due = self.leaving.iter().take_while(|(until, _)| *until <= now);
        let filters: Vec<Filter> = due.take(max).map(|(_, filter)| *filter).collect();
        let early = self.unsubscribe_from.is_some_and(|from| now < from);
        if filters.is_empty() || (early && filters.len() < max) {
            return None;
        }
        self.unsubscribe_from = Some(now + COLLECT);
        for filter in &filters {
            self.remove(*filter);
        }
        Some((self.asks.packet_id(), filters))
    }

    /// Up to `max` filters for the next SUBSCRIBE, with its packet id; `None` when no filter waits
    /// for one, or too much is unanswered.
    pub(super) fn next_subscribe(
        &mut self,
        max: usize,
        now: Instant,
    ) -> Option<(u16, Vec<Filter>)> {
        if self.asks.is_full() || self.queue.is_empty() {
            return None;
        }
        let number = self.asks.next_number();
        let mut filters = Vec::with_capacity(max.min(self.queue.len()));
        while filters.len() < max
            && let Some((_, filter)) = self.queue.pop_first()
        {
            if let Some(entry) = self.entries.get_mut(&filter) {
                entry.told = Told::Asked(number);
                filters.push(filter);
            }
        }
        Some((self.asks.begin(filters.clone(), now), filters))
    }

    /// Takes a SUBACK: for each filter of that SUBSCRIBE, in order, whether the broker took it. A
    /// filter without an answer counts as refused.
    pub(super) fn answered(&mut self, packet_id: u16, taken: &[bool], now: Instant) -> Answered {
        let mut answered = Answered::default();
        let Some(ask) = self.asks.take(packet_id) else {
            return answered;
        };
        // A slow broker is given its time for each, not for all that wait: RabbitMQ takes some hundred
        // filters a second.
        self.excuse_silence(now);
        self.generation += 1;
        for (index, filter) in ask.filters.into_iter().enumerate() {
            let Some(entry) = self.entries.get_mut(&filter) else {
                continue;
            };
            if entry.told != Told::Asked(ask.number) {
                // Unsubscribed since, and perhaps asked for anew: only that answer counts.
                continue;
            }
            if taken.get(index).copied().unwrap_or(false) {
                entry.told = Told::Subscribed;
                entry.refused = None;
                self.refused.remove(&filter);
                answered.subscribed += 1;
                let since = self.generation;
                entry.set(Standing::Live { since });
                self.news.filters.insert(filter);
            } else if entry.watchers == 0 {
                // Nobody is there to ask again for.
                self.remove(filter);
            } else {
                entry.told = Told::Refused;
                let backoff = entry.refused.get_or_insert_with(|| Backoff::REFUSED.into());
                self.retries.insert((now + backoff.next_pause(), filter));
                self.refused.insert(filter);
                answered.refused.push(filter);
            }
        }
        answered
    }

    fn enqueue(&mut self, filter: Filter) -> Told {
        self.last_queued += 1;
        self.queue.insert(self.last_queued, filter);
        Told::Queued(self.last_queued)
    }

    fn remove(&mut self, filter: Filter) {
        let Some(entry) = self.entries.remove(&filter) else {
            return;
        };
        if let Told::Queued(place) = entry.told {
            self.queue.remove(&place);
        }
        if let Some(until) = entry.stays_until {
            self.leaving.remove(&(until, filter));
        }
        self.refused.remove(&filter);
        self.news.filters.remove(&filter);
    }
}

impl Entry {
    fn set(&mut self, standing: Standing) {
        self.standing = standing;
        if let Some(state) = &self.state {
            state.send_replace(standing);
        }
    }
}

#[cfg(test)]
mod tests;
