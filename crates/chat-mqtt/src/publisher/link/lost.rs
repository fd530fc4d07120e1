//! Answers orders whose messages cannot be confirmed.

use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::mpsc;
use tracing::{debug, error};

use super::Link;
use super::order::{Order, Sent, What};
use crate::publisher::{Counters, NotConfirmed, Token};

impl Link {
    /// After the end of a connection: finds the message to set aside and fails all others.
    pub(super) fn disconnected(&mut self, ended_by_broker: bool) {
        self.counters.disconnects.fetch_add(1, Relaxed);
        let lasted = self.session.lasted();
        let found = self.heartbeat.disconnected(ended_by_broker, lasted);
        self.note(found);
        let in_flight = self.window.drain();
        let tokens: Vec<Token> = in_flight.iter().filter_map(Sent::token).collect();
        let aside = if ended_by_broker {
            self.suspects.disconnected(&tokens, lasted)
        } else {
            None
        };
        for sent in in_flight {
            let What::Event {
                token,
                channel,
                reply,
            } = sent.what
            else {
                continue;
            };
            let why = if Some(token) == aside {
                error!(
                    %channel, token = token.0,
                    "the broker ends the connection at this message; set aside"
                );
                self.counters.set_aside.fetch_add(1, Relaxed);
                NotConfirmed::SetAside
            } else {
                self.counters.lost.fetch_add(1, Relaxed);
                NotConfirmed::ConnectionLost
            };
            if reply.send(Err(why)).is_err() {
                debug!(token = token.0, "nobody waits for this confirmation");
            }
        }
        self.fail_queued();
    }

    pub(super) fn fail_all(&mut self) {
        self.queue.close();
        for sent in self.window.drain() {
            let What::Event { token, reply, .. } = sent.what else {
                continue;
            };
            self.counters.lost.fetch_add(1, Relaxed);
            if reply.send(Err(NotConfirmed::ConnectionLost)).is_err() {
                debug!(token = token.0, "nobody waits for this confirmation");
            }
        }
        self.fail_queued();
    }

    fn fail_queued(&mut self) {
        let held = self.held.take();
        for order in held
            .into_iter()
            .chain(std::iter::from_fn(|| self.queue.try_recv().ok()))
        {
            self.counters.lost.fetch_add(1, Relaxed);
            order.answer(Err(NotConfirmed::ConnectionLost));
        }
    }
}

/// Fails all orders while there is no connection. Never returns.
pub(super) async fn refuse_all(queue: &mut mpsc::Receiver<Order>, counters: &Counters) {
    while let Some(order) = queue.recv().await {
        counters.lost.fetch_add(1, Relaxed);
        order.answer(Err(NotConfirmed::ConnectionLost));
    }
    std::future::pending::<()>().await;
}
