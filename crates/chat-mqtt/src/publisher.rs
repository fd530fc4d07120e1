//! Publishes messages and confirms each of them.

mod heartbeat;
mod link;
mod suspects;
mod window;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use bytes::Bytes;
use chat_model::ChannelId;
use service_kit::lifecycle::Lifecycle;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::error;

use crate::broker_state::StateBoard;
use crate::packet_size::publish_size;
use crate::session::{Session, process_mark};
use crate::{BrokerState, MqttConfig};
use heartbeat::Beat;
use link::{Link, Order};

/// Identifies a message across attempts: the caller's own number for it, such as its position in the
/// log. A message has the same token each time it is published, and no other message has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// Why a publish has no PUBACK.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotConfirmed {
    /// The broker is away, or left before it sent the PUBACK; it may or may not have the message.
    /// Publish the message again, with the same token, before those that follow it.
    #[error("the broker went away before it acknowledged the message")]
    ConnectionLost,
    /// The broker rejects this message: it is over the packet limit, or it was alone in flight at two
    /// disconnects. Do not publish it again; listeners find it in the history.
    #[error("the broker rejects this message")]
    SetAside,
}

/// Publishes messages with QoS 1 and reports the PUBACK of each.
///
/// Nothing is kept for later. When the connection ends, everything without a PUBACK fails at once with
/// [`NotConfirmed::ConnectionLost`], as does every publish while the broker is away. The caller has the
/// log and starts again, in order, at the first message that was not confirmed. Because the caller names
/// each message by the same [`Token`] every time, the publisher can tell a message that ends connections
/// from a broker that comes and goes, and sets such a message aside.
///
/// Clones share the connections. If there are several, all messages of a channel use the same one, and
/// so keep their order.
#[derive(Clone)]
pub struct Publisher {
    shared: Arc<Shared>,
}

struct Shared {
    links: Vec<mpsc::Sender<Order>>,
    board: Arc<StateBoard>,
    beats: Vec<Arc<Beat>>,
    counters: Arc<Counters>,
    config: MqttConfig,
    topic_len: usize,
}

#[derive(Default)]
struct Counters {
    confirmed: AtomicU64,
    lost: AtomicU64,
    set_aside: AtomicU64,
    disconnects: AtomicU64,
}

/// Counts since the publisher's start, for the metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PublisherCounters {
    /// Messages with a PUBACK.
    pub confirmed: u64,
    /// Publishes that failed with [`NotConfirmed::ConnectionLost`].
    pub lost: u64,
    /// Messages that failed with [`NotConfirmed::SetAside`].
    pub set_aside: u64,
    /// Connections that ended.
    pub disconnects: u64,
}

/// How many publishes may queue for one connection, in addition to its window.
const QUEUE: usize = 1024;

impl Publisher {
    /// Starts `connections` connections (at least one). On the soft shutdown of `lifecycle`, they end
    /// once everything in flight has its PUBACK, after 2 s at most.
    ///
    /// `largest` is the largest payload in bytes that will be published. Each connection begins with a
    /// heartbeat of that size, to find out whether the broker accepts it.
    pub fn start(
        config: &MqttConfig,
        connections: usize,
        largest: usize,
        lifecycle: &Lifecycle,
    ) -> Self {
        let connections = connections.max(1);
        let board = Arc::new(StateBoard::new(connections));
        let counters = Arc::new(Counters::default());
        let process = process_mark();
        let (links, beats) = (0..connections)
            .map(|number| {
                let (orders, queue) = mpsc::channel(QUEUE);
                let session =
                    Session::new(config, "publisher", process, number, Arc::clone(&board));
                let beat = Arc::new(Beat::new(session.stem().to_owned()));
                let link = Link::new(
                    config,
                    session,
                    number,
                    queue,
                    (Arc::clone(&beat), largest),
                    Arc::clone(&board),
                    Arc::clone(&counters),
                );
                lifecycle.spawn(
                    "mqtt publisher",
                    link.run(lifecycle.soft(), lifecycle.hard()),
                );
                (orders, beat)
            })
            .unzip();
        Self {
            shared: Arc::new(Shared {
                links,
                board,
                beats,
                counters,
                topic_len: config.topic_len(),
                config: config.clone(),
            }),
        }
    }

    /// Publishes an event to its channel's topic. This waits for room in the window, so messages that
    /// one task publishes one after another keep their order. It never waits for a broker that is away.
    /// The confirmation is a separate future.
    pub async fn publish(&self, token: Token, channel: ChannelId, payload: Bytes) -> Confirmation {
        let shared = &*self.shared;
        let size = publish_size(shared.topic_len, payload.len());
        if size > shared.config.max_packet {
            error!(
                %channel, token = token.0, size, limit = shared.config.max_packet,
                "message is over the packet limit; set aside"
            );
            shared.counters.set_aside.fetch_add(1, Relaxed);
            return Confirmation(State::Known(NotConfirmed::SetAside));
        }
        let (reply, confirmed) = oneshot::channel();
        let order = Order {
            token,
            channel,
            payload,
            reply,
        };
        let link = match shared.links.len() {
            1 => 0,
            // The remainder is below the number of links, so it fits.
            links => (channel.stable_hash() % links as u64) as usize,
        };
        match shared.links[link].send(order).await {
            Ok(()) => Confirmation(State::Waiting(confirmed)),
            Err(_shut_down) => Confirmation(State::Known(NotConfirmed::ConnectionLost)),
        }
    }

    /// Whether the broker can be reached.
    pub fn state(&self) -> watch::Receiver<BrokerState> {
        self.shared.board.subscribe()
    }

    /// What is wrong with the broker, in a sentence for the operator; if several things are wrong, the
    /// worst. `None` while all is well.
    pub fn complaint(&self) -> Option<String> {
        self.shared.board.complaints.worst()
    }

    /// The names of the heartbeats that the broker has accepted within the last 10 s, at most one for
    /// each connection. Every subscriber should have received them: see
    /// [`Subscriber::expect_heartbeats`](crate::Subscriber::expect_heartbeats).
    pub fn heartbeats(&self) -> Vec<String> {
        let fresh = self.shared.beats.iter().filter(|beat| beat.is_fresh());
        fresh.map(|beat| beat.name().to_owned()).collect()
    }

    /// The counts so far.
    pub fn counters(&self) -> PublisherCounters {
        let counters = &self.shared.counters;
        PublisherCounters {
            confirmed: counters.confirmed.load(Relaxed),
            lost: counters.lost.load(Relaxed),
            set_aside: counters.set_aside.load(Relaxed),
            disconnects: counters.disconnects.load(Relaxed),
        }
    }
}

/// Resolves to `Ok` when the PUBACK arrives. It always resolves, at the latest when the connection
/// ends. Dropping it does not affect the message.
#[must_use = "only the confirmation says whether the broker has the message"]
pub struct Confirmation(State);

enum State {
    Known(NotConfirmed),
    Waiting(oneshot::Receiver<Result<(), NotConfirmed>>),
}

impl Future for Confirmation {
    type Output = Result<(), NotConfirmed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Known(why) => Poll::Ready(Err(*why)),
            State::Waiting(answer) => Pin::new(answer)
                .poll(cx)
                // The connection's task is gone, at shutdown.
                .map(|answer| answer.unwrap_or(Err(NotConfirmed::ConnectionLost))),
        }
    }
}
