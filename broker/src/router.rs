use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rumqttd::local::{LinkBuilder, LinkRx, LinkTx};
use rumqttd::protocol::{Packet, PingReq};
use rumqttd::{Notification, Router, RouterConfig};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::BrokerConfig;
use crate::link::{Link, RouterGone};

/// The router did not start, or its threads did not.
pub(crate) type StartError = std::io::Error;

/// One life of rumqttd's router, with the threads that serve its clients.
///
/// rumqttd cannot be stopped: a router lasts until it panics or the process ends. Dropping this ends
/// the connections; what remains of a router that no longer answers is one thread.
pub(crate) struct RouterLife {
    door: RouterDoor,
    is_gone: Box<dyn Fn() -> bool + Send + Sync>,
    /// Two threads for the sessions. `None` only while dropping.
    sessions: Option<Runtime>,
}

/// The way to links with a router. Clones lead to the same one.
#[derive(Clone)]
pub(crate) struct RouterDoor {
    asked: mpsc::UnboundedSender<oneshot::Sender<Result<Link, RouterGone>>>,
}

type OpenLink = dyn Fn(&str) -> Option<(LinkTx, LinkRx, Notification)> + Send;

impl RouterLife {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system refuses threads or descriptors.
    pub(crate) fn start(config: &BrokerConfig) -> Result<Self, StartError> {
        let sessions = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("broker-network")
            .enable_all()
            .build()?;
        let router = Router::new(0, router_config(config)).spawn();
        let to_router = router.clone();
        let open = move |id: &str| LinkBuilder::new(id, router.clone()).build().ok();
        Ok(Self {
            door: RouterDoor::start(Box::new(open))?,
            // The router owns the receiver; a panic drops it.
            is_gone: Box::new(move || to_router.is_disconnected()),
            sessions: Some(sessions),
        })
    }

    /// Whether the router's thread ended.
    pub(crate) fn is_gone(&self) -> bool {
        (self.is_gone)()
    }

    pub(crate) fn door(&self) -> RouterDoor {
        self.door.clone()
    }

    /// Serves a client on the threads of this life.
    pub(crate) fn spawn(&self, session: impl Future<Output = ()> + Send + 'static) {
        if let Some(sessions) = &self.sessions {
            sessions.spawn(session);
        }
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

async fn ping(door: RouterDoor) -> Result<(), RouterGone> {
    let mut link = door.open().await?;
    link.send(&mut vec![Packet::PingReq(PingReq)])?;
    let mut answers = Vec::new();
    loop {
        link.receive(&mut answers).await?;
        for answer in answers.drain(..) {
            if let Some(Packet::PingResp(_)) = answer.into() {
                return Ok(());
            }
        }
    }
}

impl Drop for RouterLife {
    fn drop(&mut self) {
        if let Some(sessions) = self.sessions.take() {
            // Waiting for its threads would block the caller's runtime.
            sessions.shutdown_background();
        }
    }
}

impl RouterDoor {
    /// rumqttd blocks its caller until the router has registered a link, so a thread of its own
    /// waits for that, and a flood of CONNECTs delays only other CONNECTs.
    fn start(open: Box<OpenLink>) -> Result<Self, StartError> {
        let (asked, mut wishes) =
            mpsc::unbounded_channel::<oneshot::Sender<Result<Link, RouterGone>>>();
        let ids = InnerIds::default();
        std::thread::Builder::new()
            .name("broker-links".to_owned())
            .spawn(move || {
                while let Some(wish) = wishes.blocking_recv() {
                    if wish.is_closed() {
                        continue;
                    }
                    let id = ids.take();
                    let link = match open(&id.name()) {
                        Some((tx, rx, _connack)) => Ok(Link::new(tx, rx, id)),
                        None => Err(RouterGone),
                    };
                    // A link that nobody takes any more ends in its drop.
                    let _ = wish.send(link);
                }
            })?;
        Ok(Self { asked })
    }

    /// A link of its own with the router.
    ///
    /// # Errors
    /// [`RouterGone`].
    pub(crate) async fn open(&self) -> Result<Link, RouterGone> {
        let (wish, granted) = oneshot::channel();
        self.asked.send(wish).map_err(|_ended| RouterGone)?;
        granted.await.map_err(|_ended| RouterGone)?
    }
}

/// The names by which a router knows its links. It keeps a record of every name that it ever heard,
/// so they are used again, and clients' own ids never reach it.
#[derive(Clone, Default)]
pub(crate) struct InnerIds(Arc<Mutex<Ids>>);

#[derive(Default)]
struct Ids {
    free: Vec<u64>,
    made: u64,
}

/// In use until it is dropped.
pub(crate) struct InnerId {
    number: u64,
    ids: InnerIds,
}

impl InnerIds {
    fn take(&self) -> InnerId {
        let mut ids = self.lock();
        let number = ids.free.pop().unwrap_or_else(|| {
            ids.made += 1;
            ids.made
        });
        InnerId {
            number,
            ids: self.clone(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ids> {
        // Nothing can panic while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InnerId {
    fn name(&self) -> String {
        format!("link-{}", self.number)
    }
}

impl Drop for InnerId {
    fn drop(&mut self) {
        self.ids.lock().free.push(self.number);
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
mod tests {
    use super::*;

    #[test]
    fn names_are_used_again() {
        let ids = InnerIds::default();
        let first = ids.take();
        let second = ids.take();
        assert_ne!(first.name(), second.name());
        let name = first.name();
        drop(first);
        assert_eq!(ids.take().name(), name);
    }
}
