//! Where links with the router begin and end.

use std::sync::{Arc, Mutex, PoisonError};

use rumqttd::local::{LinkRx, LinkTx};
use tokio::sync::{mpsc, oneshot};

use crate::link::{self, HasRoom, Link, RouterGone};
use crate::router::StartError;

/// The way to links with a router. Clones lead to the same one.
///
/// rumqttd blocks its caller until the router has registered a link, and while its queue is full. So
/// one thread waits for it, for everybody: a flood of CONNECTs delays only other CONNECTs, and a
/// router that hangs takes none of the threads that serve clients with it.
#[derive(Clone)]
pub(crate) struct RouterDoor {
    asked: Asked,
}

/// The way to the thread.
pub(crate) type Asked = mpsc::UnboundedSender<Wish>;

/// What the thread is asked for.
pub(crate) enum Wish {
    Open(oneshot::Sender<Result<Link, RouterGone>>),
    /// The name is free when the router has heard of the end.
    End(LinkTx, InnerId),
}

/// How the thread opens links with the router.
pub(crate) struct Way {
    pub(crate) open: Box<OpenLink>,
    pub(crate) has_room: Arc<HasRoom>,
}

type OpenLink = dyn Fn(&str) -> Option<(LinkTx, LinkRx)> + Send;

impl RouterDoor {
    /// Starts the thread, which begins when it is given the way to a router, and ends with the last
    /// door and the last link.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub(crate) fn start() -> Result<(Self, oneshot::Sender<Way>), StartError> {
        let (begin, way) = oneshot::channel();
        let (asked, mut wishes) = mpsc::unbounded_channel();
        let to_itself = asked.downgrade();
        let ids = InnerIds::default();
        std::thread::Builder::new()
            .name("broker-links".to_owned())
            .spawn(move || {
                let Ok(Way { open, has_room }) = way.blocking_recv() else {
                    return;
                };
                while let Some(wish) = wishes.blocking_recv() {
                    match wish {
                        Wish::Open(granted) => {
                            if granted.is_closed() {
                                continue;
                            }
                            let Some(asked) = to_itself.upgrade() else {
                                break;
                            };
                            let id = ids.take();
                            let link = match open(&id.name()) {
                                Some((tx, rx)) => {
                                    Ok(Link::new(tx, rx, id, Arc::clone(&has_room), asked))
                                }
                                None => Err(RouterGone),
                            };
                            // A link that nobody takes any more ends in its drop.
                            let _ = granted.send(link);
                        }
                        Wish::End(tx, id) => {
                            link::say_farewell(tx);
                            drop(id);
                        }
                    }
                }
            })?;
        Ok((Self { asked }, begin))
    }

    /// A link of its own with the router.
    ///
    /// # Errors
    /// [`RouterGone`].
    pub(crate) async fn open(&self) -> Result<Link, RouterGone> {
        let (wish, granted) = oneshot::channel();
        self.asked
            .send(Wish::Open(wish))
            .map_err(|_ended| RouterGone)?;
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
