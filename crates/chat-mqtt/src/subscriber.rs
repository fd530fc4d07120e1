//! Receives published messages, and restores its subscriptions by itself.

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
    /// One connection with one filter for all channels. For few nodes, and for the embedded broker,
    /// where every distinct filter is expensive.
    Wildcard,
    /// A filter for each channel that is watched: a node receives only what it needs.
    PerChannel {
        /// Number of connections, at least 1. A channel always uses the same one, which keeps its order.
        connections: usize,
    },
}

/// One message of a channel.
///
/// The payload shares the buffer of the read that it came with (64 KiB or more). Copy it if you keep it
/// for long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The channel that the topic names.
    pub channel: ChannelId,
    /// The payload as published, unchecked.
    pub payload: Bytes,
}

/// The state of a subscription to a channel. Generations grow with every change; they can be compared
/// within one [`Subscriber`] and channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Requested, or about to be; also while the broker refuses it.
    Pending,
    /// Everything published from now on arrives, or leaves a gap in the sequence: the broker has
    /// confirmed a SUBSCRIBE that is newer than the last UNSUBSCRIBE and the last disconnect.
    Live {
        /// The generation. If it changes, messages may have been missed in between.
        since: u64,
    },
    /// There is no connection.
    BrokerAway {
        /// The generation of the disconnect.
        generation: u64,
    },
}

/// The channels whose standing has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// Perhaps all.
    All,
    /// These.
    Some(Vec<ChannelId>),
}

/// Receives messages of the channels that are watched.
///
/// The list of watched channels is kept here, not in the broker: after every reconnect everything is
/// subscribed again. A broker may lose messages, especially if the consumer is slower than the broker:
/// then reading pauses, and brokers truncate their queues. The sequence numbers show the gaps.
#[derive(Clone)]
pub struct Subscriber {
    inner: Arc<Inner>,
}

struct Inner {
    mode: SubscriptionMode,
    links: Vec<Arc<Link>>,
    /// Notified when a standing has changed.
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

/// Counts since the subscriber's start, for the metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SubscriberCounters {
    /// Messages on topics that name no channel.
    pub foreign_topics: u64,
    /// Messages over the packet limit, skipped.
    pub oversize: u64,
    /// Filters that the broker refused; each refusal counts.
    pub refused_subscriptions: u64,
    /// Connections that ended.
    pub disconnects: u64,
    /// Filters wanted now, including lingering ones and those for heartbeats.
    pub filters: u64,
}

impl Subscriber {
    /// Starts the connections; they end with the soft shutdown of `lifecycle`. Each item from the
    /// receiver is what one read brought, in order. The receiver ends at shutdown. While nobody takes
    /// from it, reading pauses.
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
            // Watched for as long as the subscriber lives. In wildcard mode this also spares the first
            // listener the wait.
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

    /// Watches a channel until the subscription is dropped. Watchers of a channel are counted; the filter
    /// stays for the configured linger time after the last one has left.
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

    /// Waits until the standing of a channel has changed, or may have, since the previous call. It is
    /// meant for a single consumer that watches many channels: a second caller would take away its news.
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

    /// What is wrong with the broker, in a sentence for the operator; if several things are wrong, the
    /// worst. `None` while all is well.
    pub fn complaint(&self) -> Option<String> {
        self.inner.board.complaints.worst()
    }

    /// Tells the subscriber that the broker has accepted these heartbeats within the last 10 s
    /// ([`Publisher::heartbeats`](crate::Publisher::heartbeats)). Call it again every few seconds with
    /// what the publishers report. A connection that does not receive one of them within 12 s is deaf.
    pub fn expect_heartbeats(&self, names: &[String]) {
        let now = Instant::now();
        for link in &self.inner.links {
            link.heartbeat_monitor.expect(names, now);
        }
    }

    /// How many connections are up and subscribed, but do not receive what the broker has accepted from a
    /// publisher. Published messages may not arrive; ask the store instead.
    pub fn deaf_connections(&self) -> usize {
        self.inner.board.complaints.count(Fault::Deaf)
    }

    /// The counts so far.
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

/// One watcher of a channel. Dropping it leaves the channel.
#[must_use = "dropping a subscription leaves the channel"]
pub struct Subscription {
    filter: Filter,
    link: Arc<Link>,
    lingers: bool,
}

impl Subscription {
    /// The state of the subscription. In wildcard mode all channels share it.
    pub fn standing(&self) -> Standing {
        let standing = self.link.registry().standing(self.filter);
        standing.expect("a filter stays as long as it is watched")
    }

    /// The state, now and from now on. It costs some hundred bytes per channel; to watch many channels,
    /// use [`Subscriber::changed`].
    pub fn state(&self) -> watch::Receiver<Standing> {
        let state = self.link.registry().state(self.filter);
        state.expect("a filter stays as long as it is watched")
    }

    /// Leaves without the linger time, because nobody is expected to return.
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
