use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use chat_model::ChannelId;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Standing;
use crate::Backoff;

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
    /// Waiting for their SUBSCRIBE. Stale elements are skipped: an entry says itself whether it is queued.
    queue: VecDeque<Filter>,
    /// To be told to the broker before anything else is asked for.
    unwanted: VecDeque<Filter>,
    /// Entries without watchers, in the order in which their time ends, as nearly as matters.
    lingering: VecDeque<(Instant, Filter)>,
    retries: BTreeSet<(Instant, Filter)>,
    /// Those whose last answer was a refusal.
    refused: BTreeSet<Filter>,
    /// SUBSCRIBEs without a SUBACK, oldest first.
    asked: VecDeque<Asked>,
    connected: bool,
    last_packet_id: u16,
    asks: u64,
    generation: u64,
}

#[derive(Debug)]
struct Entry {
    watchers: usize,
    /// Set while the filter is in `lingering`.
    in_lingering: bool,
    unwatched_since: Option<Instant>,
    standing: watch::Sender<Standing>,
    told: Told,
    refused: Backoff,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    Queued,
    /// Asked for, by the ask with this number; an answer to another one does not count.
    Asked(u64),
    Subscribed,
    Refused,
}

#[derive(Debug)]
struct Asked {
    packet_id: u16,
    number: u64,
    at: Instant,
    filters: Vec<Filter>,
}

/// What one SUBACK brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answered {
    pub(super) subscribed: usize,
    pub(super) refused: Vec<Filter>,
}

/// How many SUBSCRIBEs may wait for their SUBACK. Enough to keep a broker busy, few enough that
/// deliveries are not held up behind a hundred thousand filters.
const MAX_ASKED: usize = 8;

impl Registry {
    pub(super) fn new(linger: Duration) -> Self {
        Self {
            entries: HashMap::new(),
            linger,
            queue: VecDeque::new(),
            unwanted: VecDeque::new(),
            lingering: VecDeque::new(),
            retries: BTreeSet::new(),
            refused: BTreeSet::new(),
            asked: VecDeque::new(),
            connected: false,
            last_packet_id: 0,
            asks: 0,
            generation: 0,
        }
    }

    /// One more watcher.
    pub(super) fn watch(&mut self, filter: Filter) -> watch::Receiver<Standing> {
        let entry = self.entries.entry(filter).or_insert_with(|| {
            let (standing, told) = if self.connected {
                self.queue.push_back(filter);
                (Standing::Pending, Told::Queued)
            } else {
                let generation = self.generation;
                (Standing::BrokerAway { generation }, Told::Nothing)
            };
            Entry {
                watchers: 0,
                in_lingering: false,
                unwatched_since: None,
                standing: watch::Sender::new(standing),
                told,
                refused: Backoff::REFUSED,
            }
        });
        entry.watchers += 1;
        entry.unwatched_since = None;
        entry.standing.subscribe()
    }

    /// One watcher less; after the last, the filter lingers.
    pub(super) fn leave(&mut self, filter: Filter, now: Instant) {
        let Some(entry) = self.entries.get_mut(&filter) else {
            return;
        };
        entry.watchers = entry.watchers.saturating_sub(1);
        if entry.watchers > 0 {
            return;
        }
        if !self.connected {
            self.entries.remove(&filter);
            return;
        }
        entry.unwatched_since = Some(now);
        if !entry.in_lingering {
            entry.in_lingering = true;
            self.lingering.push_back((now + self.linger, filter));
        }
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
        for (filter, entry) in &mut self.entries {
            entry.told = Told::Queued;
            entry.standing.send_replace(Standing::Pending);
            self.queue.push_back(*filter);
        }
    }

    /// The connection is gone, and with it all that the broker was told.
    pub(super) fn disconnected(&mut self) {
        self.connected = false;
        self.queue.clear();
        self.unwanted.clear();
        self.lingering.clear();
        self.retries.clear();
        self.refused.clear();
        self.asked.clear();
        self.entries.retain(|_, entry| entry.watchers > 0);
        self.generation += 1;
        let generation = self.generation;
        for entry in self.entries.values_mut() {
            entry.told = Told::Nothing;
            entry.in_lingering = false;
            entry
                .standing
                .send_replace(Standing::BrokerAway { generation });
        }
    }

    /// Does what has come due: lingering that is over, and refused filters to be asked for again.
    pub(super) fn tick(&mut self, now: Instant) {
        while let Some((at, filter)) = self.lingering.front().copied() {
            if at > now {
                break;
            }
            self.lingering.pop_front();
            let Some(entry) = self.entries.get_mut(&filter) else {
                continue;
            };
            entry.in_lingering = false;
            let Some(since) = entry.unwatched_since else {
                continue;
            };
            if since + self.linger > now {
                entry.in_lingering = true;
                self.lingering.push_back((since + self.linger, filter));
                continue;
            }
            if matches!(entry.told, Told::Asked(_) | Told::Subscribed) {
                self.unwanted.push_back(filter);
            }
            self.entries.remove(&filter);
            self.refused.remove(&filter);
        }
        while let Some((at, filter)) = self.retries.first().copied() {
            if at > now {
                break;
            }
            self.retries.pop_first();
            if let Some(entry) = self.entries.get_mut(&filter)
                && entry.told == Told::Refused
            {
                entry.told = Told::Queued;
                self.queue.push_back(filter);
            }
        }
    }

    /// When [`tick`](Self::tick) has something to do.
    pub(super) fn next_tick(&self) -> Option<Instant> {
        let lingering = self.lingering.front().map(|(at, _)| *at);
        let retry = self.retries.first().map(|(at, _)| *at);
        lingering.into_iter().chain(retry).min()
    }

    /// Since when a SUBSCRIBE has been without an answer, and none has come for another.
    pub(super) fn unanswered_since(&self) -> Option<Instant> {
        self.asked.front().map(|asked| asked.at)
    }

    /// Gives all unanswered SUBSCRIBEs their time anew: while reading was paused, answers could not
    /// be seen.
    pub(super) fn excuse_silence(&mut self, now: Instant) {
        for asked in &mut self.asked {
            asked.at = now;
        }
    }

    /// Up to `max` filters for the next UNSUBSCRIBE, with its packet id. To be sent before what
    /// [`next_subscribe`](Self::next_subscribe) gives: a filter may be in both.
    pub(super) fn next_unsubscribe(&mut self, max: usize) -> Option<(u16, Vec<Filter>)> {
        if self.unwanted.is_empty() {
            return None;
        }
        let filters = self
            .unwanted
            .drain(..max.min(self.unwanted.len()))
            .collect();
        Some((self.packet_id(), filters))
    }

    /// Up to `max` filters for the next SUBSCRIBE, with its packet id; `None` when no filter waits
    /// for one, or too much is unanswered.
    pub(super) fn next_subscribe(
        &mut self,
        max: usize,
        now: Instant,
    ) -> Option<(u16, Vec<Filter>)> {
        if self.asked.len() >= MAX_ASKED {
            return None;
        }
        let number = self.asks + 1;
        let mut filters = Vec::new();
        while filters.len() < max
            && let Some(filter) = self.queue.pop_front()
        {
            if let Some(entry) = self.entries.get_mut(&filter)
                && entry.told == Told::Queued
            {
                entry.told = Told::Asked(number);
                filters.push(filter);
            }
        }
        if filters.is_empty() {
            return None;
        }
        self.asks = number;
        let packet_id = self.packet_id();
        self.asked.push_back(Asked {
            packet_id,
            number,
            at: now,
            filters: filters.clone(),
        });
        Some((packet_id, filters))
    }

    /// Takes a SUBACK: for each filter of that SUBSCRIBE, in order, whether the broker took it. A
    /// filter without an answer counts as refused.
    pub(super) fn answered(&mut self, packet_id: u16, taken: &[bool], now: Instant) -> Answered {
        let mut answered = Answered::default();
        let Some(at) = self
            .asked
            .iter()
            .position(|asked| asked.packet_id == packet_id)
        else {
            return answered;
        };
        let Some(asked) = self.asked.remove(at) else {
            return answered;
        };
        // A slow broker is given its time for each, not for all that wait: RabbitMQ takes some hundred
        // filters a second.
        self.excuse_silence(now);
        self.generation += 1;
        for (index, filter) in asked.filters.into_iter().enumerate() {
            let Some(entry) = self.entries.get_mut(&filter) else {
                continue;
            };
            if entry.told != Told::Asked(asked.number) {
                // Unsubscribed since, and perhaps asked for anew: only that answer counts.
                continue;
            }
            if taken.get(index).copied().unwrap_or(false) {
                entry.told = Told::Subscribed;
                entry.refused.reset();
                self.refused.remove(&filter);
                answered.subscribed += 1;
                let since = self.generation;
                entry.standing.send_replace(Standing::Live { since });
            } else {
                entry.told = Told::Refused;
                self.retries
                    .insert((now + entry.refused.next_pause(), filter));
                self.refused.insert(filter);
                answered.refused.push(filter);
            }
        }
        answered
    }

    /// An id that no unanswered SUBSCRIBE has. UNSUBACKs are not waited for: some brokers send
    /// none for a filter they did not know, others several for one packet.
    fn packet_id(&mut self) -> u16 {
        loop {
            self.last_packet_id = self.last_packet_id.checked_add(1).unwrap_or(1);
            let id = self.last_packet_id;
            if self.asked.iter().all(|asked| asked.packet_id != id) {
                return id;
            }
        }
    }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
