//! Receiving what is published, with subscriptions that heal themselves.

mod heartbeat_monitor;
mod link;
mod missing_heartbeats;
mod registry;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use chat_model::ChannelId;
use service_kit::lifecycle::Lifecycle;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use crate::broker_state::StateBoard;
use crate::complaints::Fault;
use crate::session::{Session, process_mark};
use crate::{BrokerState, MqttConfig};
use heartbeat_monitor::HeartbeatMonitor;
use link::{Link, LinkTask};
use registry::Filter;

/// How channels are subscribed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscriptionMode {
    /// One connection with one filter for all channels: for few nodes, and for the embedded
    /// broker, where every distinct filter costs much.
    Wildcard,
    /// A filter for each channel that is watched: a node receives only what it needs.
    PerChannel {
        /// Number of connections, at least 1. A channel keeps to one of them, and so its order.
        connections: usize,
    },
}

/// One message of a channel.
///
/// The payload shares the buffer of the read that brought it (64 KiB or more): copy it to keep it
/// for long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The channel that the topic names.
    pub channel: ChannelId,
    /// The payload as published, not looked at.
    pub payload: Bytes,
}

/// Where the subscription to a channel stands. Generations grow with every change for the worse or
/// the better; they compare within one [`Subscriber`] and channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Asked for, or about to be; also while the broker refuses it.
    Pending,
    /// Everything published from now on arrives, or leaves a hole in the sequence: the broker has
    /// confirmed a SUBSCRIBE that is newer than the last UNSUBSCRIBE and the last disconnect.
    Live {
        /// Another one means that messages may have been missed in between.
        since: u64,
    },
    /// There is no connection.
    BrokerAway {
        /// Of the disconnect.
        generation: u64,
    },
}

/// Of which channels the standing has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// Perhaps of all.
    All,
    /// Of these.
    Some(Vec<ChannelId>),
}

/// Receives messages of the channels that somebody watches.
///
/// What is watched is kept here, not in the broker: after every reconnect everything is subscribed
/// to anew. A broker may lose messages, most of all one that reads faster than the consumer: then
/// reading pauses, and brokers cut their queues. The sequence numbers show the holes.
#[derive(Clone)]
pub struct Subscriber {
    inner: Arc<Inner>,
}

struct Inner {
    mode: SubscriptionMode,
    links: Vec<Arc<Link>>,
    /// Woken when a standing has changed.
    news: Arc<Notify>,
    board: Arc<StateBoard>,
    counters: Arc<Counters>,
}

#[derive(Default)]
struct Counters {
    foreign: AtomicU64,
    oversize: AtomicU64,
    refused: AtomicU64,
    disconnects: AtomicU64,
}

/// What a subscriber has met since its start, for the metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SubscriberCounters {
    /// Messages on topics that name no channel.
    pub foreign_topics: u64,
    /// Messages over the packet limit, skipped.
    pub oversize: u64,
    /// Filters that the broker refused, each time.
    pub refused_subscriptions: u64,
    /// Connections that ended.
    pub disconnects: u64,
    /// Filters wanted now, lingering ones and those for heartbeats included.
    pub filters: u64,
}

impl Subscriber {
    /// Starts the connections; they end with the soft shutdown of `lifecycle`. The receiver gives
    /// what one read brought, in order; it ends at shutdown. While nobody takes from it, reading
    /// pauses.
    pub fn start(
        config: &MqttConfig,
        mode: SubscriptionMode,
        lifecycle: &Lifecycle,
    ) -> (Self, mpsc::Receiver<Vec<Delivery>>) {
        let connections = match mode {
            SubscriptionMode::Wildcard => 1,
            SubscriptionMode::PerChannel { connections } => connections.max(1),
        };
        let (deliveries, receiver) = mpsc::channel(config.receive_buffer.max(1));
        let board = Arc::new(StateBoard::new(connections));
        let counters = Arc::new(Counters::default());
        let process = process_mark();
        let (filter, filter_text) = match mode {
            SubscriptionMode::Wildcard => (Filter::Wildcard, config.topic_prefix.filter()),
            SubscriptionMode::PerChannel { .. } => {
                (Filter::Heartbeat, config.topic_prefix.heartbeat())
            }
        };
        let news = Arc::new(Notify::new());
        let links: Vec<_> = (0..connections)
            .map(|number| {
                let heartbeat_monitor =
                    HeartbeatMonitor::new(number, filter_text.clone(), Arc::clone(&board));
                Arc::new(Link::new(config, heartbeat_monitor, Arc::clone(&news)))
            })
            .collect();
        for (number, link) in links.iter().enumerate() {
            // Watched for as long as the subscriber lives; nobody leaves it. In wildcard mode the first
            // listener need not wait either.
            link.registry().watch(filter);
            let task = LinkTask {
                config: config.clone(),
                session: Session::new(config, "subscriber", process, number, Arc::clone(&board)),
                number,
                link: Arc::clone(link),
                board: Arc::clone(&board),
                counters: Arc::clone(&counters),
                deliveries: deliveries.clone(),
                heartbeats: filter,
            };
            lifecycle.spawn("mqtt subscriber", task.run(lifecycle.soft()));
        }
        let inner = Inner {
            mode,
            links,
            news,
            board,
            counters,
        };
        (
            Self {
                inner: Arc::new(inner),
            },
            receiver,
        )
    }

    /// Watches a channel until the subscription is dropped. Watchers of a channel are counted; the
    /// filter stays for the configured linger after the last has gone.
    pub fn watch(&self, channel: ChannelId) -> Subscription {
        let (link, filter) = match self.inner.mode {
            SubscriptionMode::Wildcard => (0, Filter::Wildcard),
            SubscriptionMode::PerChannel { .. } => {
                // The remainder is below the number of links, so it fits.
                let link = (channel.stable_hash() % self.inner.links.len() as u64) as usize;
                (link, Filter::Channel(channel))
            }
        };
        let link = Arc::clone(&self.inner.links[link]);
        link.registry().watch(filter);
        link.wake();
        Subscription {
            filter,
            link,
            lingers: true,
        }
    }

    /// Waits until the standing of a channel has changed, or may have, since this was called
    /// before. For one consumer, who watches many channels: who calls it beside him takes the news
    /// away from him.
    pub async fn changed(&self) -> Changed {
        loop {
            let mut all = false;
            let mut channels = Vec::new();
            for link in &self.inner.links {
                let news = link.registry().take_news();
                all |= news.all || news.filters.contains(&Filter::Wildcard);
                channels.extend(news.filters.iter().filter_map(|filter| match filter {
                    Filter::Channel(channel) => Some(*channel),
                    Filter::Wildcard | Filter::Heartbeat => None,
                }));
            }
            if all {
                return Changed::All;
            }
            if !channels.is_empty() {
                return Changed::Some(channels);
            }
            self.inner.news.notified().await;
        }
    }

    /// Whether the broker can be reached.
    pub fn state(&self) -> watch::Receiver<BrokerState> {
        self.inner.board.subscribe()
    }

    /// What is wrong with the broker, in a sentence for whoever runs the service; the worst, if it is
    /// several things. `None` while all is well.
    pub fn complaint(&self) -> Option<String> {
        self.inner.board.complaints.worst()
    }

    /// The broker has taken these heartbeats within the last 10 s
    /// ([`Publisher::heartbeats`](crate::Publisher::heartbeats)). To be told again every few seconds,
    /// by whoever publishes. A connection to which one of them does not come in 12 s is deaf.
    pub fn expect_heartbeats(&self, names: &[String]) {
        let now = Instant::now();
        for link in &self.inner.links {
            link.heartbeat_monitor.expect(names, now);
        }
    }

    /// How many connections stand and are subscribed, but do not hear what the broker has taken from
    /// a publisher: what is published may not arrive, and the store should be asked instead.
    pub fn deaf_connections(&self) -> usize {
        self.inner.board.complaints.count(Fault::Deaf)
    }

    /// What happened so far.
    pub fn counters(&self) -> SubscriberCounters {
        let counters = &self.inner.counters;
        SubscriberCounters {
            foreign_topics: counters.foreign.load(Relaxed),
            oversize: counters.oversize.load(Relaxed),
            refused_subscriptions: counters.refused.load(Relaxed),
            disconnects: counters.disconnects.load(Relaxed),
            filters: self
                .inner
                .links
                .iter()
                .map(|link| link.registry().len() as u64)
                .sum(),
        }
    }
}

/// One watcher of a channel. Dropping it is leaving.
#[must_use = "dropping a subscription is leaving the channel"]
pub struct Subscription {
    filter: Filter,
    link: Arc<Link>,
    lingers: bool,
}

impl Subscription {
    /// Where the subscription stands. In wildcard mode all channels share it.
    pub fn standing(&self) -> Standing {
        let standing = self.link.registry().standing(self.filter);
        standing.expect("a filter stays as long as it is watched")
    }

    /// The same, now and from now on. It costs some hundred bytes a channel: who watches many uses
    /// [`Subscriber::changed`].
    pub fn state(&self) -> watch::Receiver<Standing> {
        let state = self.link.registry().state(self.filter);
        state.expect("a filter stays as long as it is watched")
    }

    /// Leaves without the linger: nobody is expected back.
    pub fn leave_at_once(mut self) {
        self.lingers = false;
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let now = Instant::now();
        self.link.registry().leave(self.filter, self.lingers, now);
        self.link.wake();
    }
}
