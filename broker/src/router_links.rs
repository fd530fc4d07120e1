//! Where links with the router begin and end.

use std::io;
use std::sync::Arc;

use rumqttd::local::{LinkRx, LinkTx};
use tokio::sync::{mpsc, oneshot};

use crate::link::{self, Farewell, HasRoom, Link, RouterGone};

/// The way to links with a router. Clones lead to the same one.
///
/// rumqttd blocks its caller until the router has registered a link, and while its queue is full. So
/// one thread waits for it, for everybody: a flood of CONNECTs delays only other CONNECTs, and a
/// router that hangs takes none of the threads that serve clients with it.
#[derive(Clone)]
pub(crate) struct RouterLinks {
    asked: Asked,
}

/// The way to the thread.
type Asked = mpsc::UnboundedSender<Wish>;

/// What the thread is asked for.
enum Wish {
    Open(oneshot::Sender<Result<Link, RouterGone>>),
    /// The number is free when the router has heard of the end.
    End(LinkTx, u64),
}

/// How the thread opens links with the router.
pub(crate) struct Way {
    pub(crate) open: Box<OpenLink>,
    pub(crate) has_room: Arc<HasRoom>,
}

type OpenLink = dyn Fn(&str) -> Option<(LinkTx, LinkRx)> + Send;

impl RouterLinks {
    /// Starts the thread, which begins when it is given the way to a router, and ends with the last
    /// door and the last link.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub(crate) fn start() -> Result<(Self, oneshot::Sender<Way>), io::Error> {
        let (begin, way) = oneshot::channel();
        let (asked, mut wishes) = mpsc::unbounded_channel();
        let to_itself = asked.downgrade();
        let mut numbers = Numbers::default();
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
                            let number = numbers.take();
                            let link = match open(&format!("link-{number}")) {
                                Some((tx, rx)) => {
                                    let (room, end) = (Arc::clone(&has_room), farewell(asked));
                                    Ok(Link::new(tx, rx, number, room, end))
                                }
                                None => {
                                    numbers.give_back(number);
                                    Err(RouterGone)
                                }
                            };
                            // A link that nobody takes any more ends in its drop.
                            let _ = granted.send(link);
                        }
                        Wish::End(tx, number) => {
                            link::say_farewell(tx);
                            numbers.give_back(number);
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

/// How a link ends: by the thread, which lives as long as there is one.
fn farewell(asked: Asked) -> Arc<Farewell> {
    Arc::new(move |tx, number| {
        // The thread is gone only with the process.
        let _ = asked.send(Wish::End(tx, number));
    })
}

/// The numbers by which a router knows its links. It keeps a record of every name that it ever heard,
/// so they are used again, and clients' own ids never reach it.
#[derive(Default)]
struct Numbers {
    free: Vec<u64>,
    made: u64,
}

impl Numbers {
    fn take(&mut self) -> u64 {
        self.free.pop().unwrap_or_else(|| {
            self.made += 1;
            self.made
        })
    }

    fn give_back(&mut self, number: u64) {
        self.free.push(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_used_again() {
        let mut numbers = Numbers::default();
        let first = numbers.take();
        let second = numbers.take();
        assert_ne!(first, second);
        numbers.give_back(first);
        assert_eq!(numbers.take(), first);
    }
}
