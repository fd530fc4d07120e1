//! Publishing with confirmation.

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

/// Names a message across attempts: the caller's own number for it, such as its position in the
/// log. The same message has the same token each time it is published, and no other has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// Why a publish has no PUBACK.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotConfirmed {
    /// The broker is away, or went before its PUBACK came; it may have the message or not. Publish
    /// it again, with the same token, before what comes after it.
    #[error("the broker went away before it acknowledged the message")]
    ConnectionLost,
    /// The broker will not take this message: it is over the packet limit, or it was alone in
    /// flight at two disconnects. Do not publish it again; listeners find it in the history.
    #[error("the broker does not take this message")]
    SetAside,
}

/// Publishes messages with QoS 1 and tells when each has its PUBACK.
///
/// Nothing is kept for later: when the connection ends, everything without a PUBACK fails at once
/// with [`NotConfirmed::ConnectionLost`], and while the broker is away every publish does. The
/// caller has the log; it starts again at the first message that was not confirmed, in order.
/// Because it does, and names each message by the same [`Token`] every time, the publisher can
/// tell a message that ends connections from a broker that comes and goes, and sets it aside.
///
/// Clones share the connections. With several, a channel's messages keep to one of them, and so
/// keep their order.
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

/// What a publisher has done since its start, for the metrics.
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

/// How many publishes may wait for their turn at one connection, in addition to its window.
const QUEUE: usize = 1024;

impl Publisher {
    /// Starts `connections` connections (at least one). They end with the soft shutdown of
    /// `lifecycle`, once everything in flight has its PUBACK, 2 s later at most.
    ///
    /// `largest` is the largest payload in bytes that will be published. Each connection begins with
    /// a heartbeat of that size, to find out whether the broker takes it.
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

    /// Publishes an event to its channel's topic. Waits for room in the window, so messages that
    /// one task publishes one after the other keep their order; never waits for a broker that is
    /// away. The confirmation is a future of its own.
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

    /// What is wrong with the broker, in a sentence for whoever runs the service; the worst, if it is
    /// several things. `None` while all is well.
    pub fn complaint(&self) -> Option<String> {
        self.shared.board.complaints.worst()
    }

    /// The names of the heartbeats that the broker has taken within the last 10 s, at most one for
    /// each connection. Whoever is subscribed should have them too: see
    /// [`Subscriber::expect_heartbeats`](crate::Subscriber::expect_heartbeats).
    pub fn heartbeats(&self) -> Vec<String> {
        let fresh = self.shared.beats.iter().filter(|beat| beat.is_fresh());
        fresh.map(|beat| beat.name().to_owned()).collect()
    }

    /// What happened so far.
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

/// Becomes `Ok` at the PUBACK. Always becomes something: at the end of the connection at the
/// latest. Dropping it changes nothing for the message.
#[must_use = "only the confirmation tells whether the broker has the message"]
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
