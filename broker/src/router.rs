use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rumqttd::local::LinkBuilder;
use rumqttd::protocol::{Packet, PingReq};
use rumqttd::{Router, RouterConfig};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::debug;

use crate::BrokerConfig;
use crate::link::{HasRoom, RouterGone};
use crate::router_links::{RouterLinks, Way};
use crate::threads::{Threads, refusable};

/// The router did not start, or its threads did not.
pub(crate) type StartError = std::io::Error;

/// One life of rumqttd's router, with the threads that serve its clients.
///
/// rumqttd cannot be stopped: a router lasts until it panics or the process ends. Dropping this ends
/// the connections. Of a router that hangs two threads remain: its own, and the one that waits for
/// it to open and to end links (see [`RouterLinks`]).
pub(crate) struct RouterLife {
    door: RouterLinks,
    is_gone: Box<dyn Fn() -> bool + Send + Sync>,
    /// The sessions' threads, none of which ever waits for the router.
    sessions: Threads,
    #[cfg(test)]
    has_room: Arc<HasRoom>,
    #[cfg(test)]
    link_of: Box<dyn Fn(rumqttd::ConnectionId) -> rumqttd::local::LinkTx + Send + Sync>,
}

/// Threads for the sessions.
const THREADS: usize = 2;

/// Events that may be added to the router's queue between a look whether there is room and the
/// adding: one by each thread.
const IN_BETWEEN: usize = THREADS + 1;

impl RouterLife {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system refuses threads or descriptors.
    pub(crate) fn start(config: &BrokerConfig) -> Result<Self, StartError> {
        let sessions = Threads::start("broker-network", THREADS)?;
        // The router comes last: it cannot be stopped any more when something else is refused.
        let (door, begin) = RouterLinks::start()?;
        let router = refusable(|| Ok(Router::new(0, router_config(config)).spawn()))?;
        let links = router.clone();
        let open = move |id: &str| {
            let link = LinkBuilder::new(id, links.clone()).build();
            let link = link.inspect_err(|error| debug!(%error, "no link with the router"));
            let (tx, rx, _connack) = link.ok()?;
            Some((tx, rx))
        };
        let queue = router.clone();
        let has_room = move || {
            let full = queue.capacity().unwrap_or(usize::MAX);
            queue.is_disconnected() || queue.len() + IN_BETWEEN < full
        };
        let has_room: Arc<HasRoom> = Arc::new(has_room);
        #[cfg(test)]
        let tests = router.clone();
        let way = Way {
            open: Box::new(open),
            has_room: Arc::clone(&has_room),
        };
        // A thread that is gone opens no link, as its door says.
        let _ = begin.send(way);
        Ok(Self {
            #[cfg(test)]
            has_room,
            #[cfg(test)]
            link_of: Box::new(move |id| {
                rumqttd::local::LinkTx::new(id, tests.clone(), Arc::default())
            }),
            door,
            // The router owns the receiver; a panic drops it.
            is_gone: Box::new(move || router.is_disconnected()),
            sessions,
        })
    }

    /// Whether the router's thread ended.
    pub(crate) fn is_gone(&self) -> bool {
        (self.is_gone)()
    }

    pub(crate) fn door(&self) -> RouterLinks {
        self.door.clone()
    }

    /// Serves a client on the threads of this life.
    pub(crate) fn spawn(&self, session: impl Future<Output = ()> + Send + 'static) {
        self.sessions.spawn(session);
    }

    /// Asks the router for a PINGRESP, on the threads and by the way that clients take, but without
    /// a socket: it works when descriptors have run out, too.
    ///
    /// # Errors
    /// A sentence, after `within` at the latest.
    pub(crate) async fn answers(&self, within: Duration) -> Result<(), String> {
        let (done, answered) = oneshot::channel();
        let door = self.door();
        self.spawn(async move {
            // Nobody waits any more when this took too long.
            let _ = done.send(ping(door).await);
        });
        match timeout(within, answered).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(_gone) => Err("the router is gone".to_owned()),
            Err(_elapsed) => Err(format!("no answer within {within:?}")),
        }
    }
}

async fn ping(door: RouterLinks) -> Result<(), RouterGone> {
    let mut link = door.open().await?;
    link.send(&mut vec![Packet::PingReq(PingReq)]).await?;
    let mut answers = VecDeque::new();
    loop {
        link.receive(&mut answers).await?;
        for answer in answers.drain(..) {
            if let Some(Packet::PingResp(_)) = answer.into() {
                return Ok(());
            }
        }
    }
}

fn router_config(config: &BrokerConfig) -> RouterConfig {
    RouterConfig {
        // The guard keeps the number; the router must never be full, since it then answers nothing.
        max_connections: config.max_connections * 2 + 64,
        max_outgoing_packet_count: 200,
        max_segment_size: config.segment_size,
        max_segment_count: config.segments,
        ..RouterConfig::default()
    }
}

#[cfg(test)]
mod hanging {
    use super::*;

    impl RouterLife {
        /// Lets the router wait for ever, and fills its queue.
        pub(crate) async fn hang(&self) {
            let link = self.door().open().await.unwrap();
            let id = link.hang();
            while (self.has_room)() {
                crate::link::ring(&mut (self.link_of)(id));
            }
        }
    }
}
