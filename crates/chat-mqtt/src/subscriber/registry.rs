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

/// What one connection should be subscribed to, and how much of it the broker has been told.
///
/// This is authoritative. The broker's state is made equal to it, from nothing after every reconnect.
/// Pure: it sends nothing and has no clock.
#[derive(Debug)]
pub(super) struct Registry {
    entries: HashMap<Filter, Entry>,
    linger: Duration,
    /// Filters that wait for their SUBSCRIBE, in order.
    queue: BTreeMap<u64, Filter>,
    last_queued: u64,
    /// Filters without watchers that the broker knows, by the time until which they stay.
    leaving: BTreeSet<(Instant, Filter)>,
    /// Before this moment, only a full UNSUBSCRIBE is sent.
    unsubscribe_from: Option<Instant>,
    retries: BTreeSet<(Instant, Filter)>,
    /// Filters whose last answer was a refusal.
    refused: BTreeSet<Filter>,
    asks: Asks,
    news: News,
    connected: bool,
    generation: u64,
}

/// There may be a hundred thousand entries, so what only few of them need is created on demand.
#[derive(Debug)]
struct Entry {
    watchers: u32,
    told: Told,
    standing: Standing,
    /// Its place in `leaving`.
    stays_until: Option<Instant>,
    /// Created when somebody first wants to wait for the standing of this filter alone.
    state: Option<watch::Sender<Standing>>,
    /// Created by the first refusal.
    refused: Option<Box<Backoff>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    /// In `queue`, under this key.
    Queued(u64),
    /// Requested, by the ask with this number; an answer to another ask does not count.
    Asked(u64),
    Subscribed,
    Refused,
}

/// The filters whose standing has changed since the last call.
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

/// How long filters are collected for an UNSUBSCRIBE, unless it is full earlier. A client that opens
/// streams and closes them at once then costs the broker only few packets.
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

    /// Adds a watcher.
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

    /// The standing of a filter; `None` if nobody watches it.
    pub(super) fn standing(&self, filter: Filter) -> Option<Standing> {
        self.entries.get(&filter).map(|entry| entry.standing)
    }

    /// The standing of a filter, now and from now on.
    pub(super) fn state(&mut self, filter: Filter) -> Option<watch::Receiver<Standing>> {
        let entry = self.entries.get_mut(&filter)?;
        let standing = entry.standing;
        let state = entry
            .state
            .get_or_insert_with(|| watch::Sender::new(standing));
        Some(state.subscribe())
    }

    /// What has changed since the last call. A new watcher must look up the first standing itself.
    pub(super) fn take_news(&mut self) -> News {
        std::mem::take(&mut self.news)
    }

    /// Removes a watcher. After the last one, a filter that the broker knows stays for the linger time if
    /// it `lingers`, and otherwise until the next UNSUBSCRIBE. A filter that the broker does not know is
    /// removed at once.
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

    /// How many filters are wanted, including lingering ones.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Notes a new connection: the broker knows no filters yet.
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

    /// Notes the end of the connection, and with it of all that the broker was told.
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

    /// Does what has become due: requests refused filters again.
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

    /// When the next thing becomes due.
    pub(super) fn next_tick(&self) -> Option<Instant> {
        let leaving = self.leaving.first().map(|(at, _)| *at);
        let leaving = leaving.map(|at| self.unsubscribe_from.map_or(at, |from| at.max(from)));
        let retry = self.retries.first().map(|(at, _)| *at);
        leaving.into_iter().chain(retry).min()
    }

    /// Since when a SUBSCRIBE has waited for its answer without an answer to any other.
    pub(super) fn unanswered_since(&self) -> Option<Instant> {
        self.asks.unanswered_since()
    }

    /// Restarts the time limit of all unanswered SUBSCRIBEs, because answers could not be seen while
    /// reading was paused.
    pub(super) fn excuse_silence(&mut self, now: Instant) {
        self.asks.excuse_silence(now);
    }

    /// Up to `max` filters for the next UNSUBSCRIBE, with its packet id. Send it before the result of
    /// [`next_subscribe`](Self::next_subscribe): a filter may be in both.
    pub(super) fn next_unsubscribe(
        &mut self,
        max: usize,
        now: Instant,
    ) -> Option<(u16, Vec<Filter>)> {
        // This is asked for every read: what is not sent yet is not gathered.
        let early = self.unsubscribe_from.is_some_and(|from| now < from);
        let enough = if early { max } else { 1 };
        let last = self.leaving.iter().nth(enough.checked_sub(1)?)?;
        if last.0 > now {
            return None;
        }
        let due = self.leaving.iter().take_while(|(until, _)| *until <= now);
        let filters: Vec<Filter> = due.take(max).map(|(_, filter)| *filter).collect();
        self.unsubscribe_from = Some(now + COLLECT);
        for filter in &filters {
            self.remove(*filter);
        }
        Some((self.asks.packet_id(), filters))
    }

    /// Up to `max` filters for the next SUBSCRIBE, with its packet id; `None` if no filter waits for one,
    /// or too many are unanswered.
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

    /// Takes a SUBACK: for each filter of that SUBSCRIBE, in order, whether the broker accepted it. A
    /// filter without an answer counts as refused.
    pub(super) fn answered(&mut self, packet_id: u16, taken: &[bool], now: Instant) -> Answered {
        let mut answered = Answered::default();
        let Some(ask) = self.asks.take(packet_id) else {
            return answered;
        };
        // A slow broker gets the full time for each SUBSCRIBE, not for all that wait: RabbitMQ accepts
        // only some hundred filters a second.
        self.excuse_silence(now);
        self.generation += 1;
        for (index, filter) in ask.filters.into_iter().enumerate() {
            let Some(entry) = self.entries.get_mut(&filter) else {
                continue;
            };
            if entry.told != Told::Asked(ask.number) {
                // Unsubscribed since, and perhaps requested again: only the newer answer counts.
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
                // Nobody watches it any longer, so it need not be requested again.
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
