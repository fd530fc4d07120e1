mod finding;
mod lost;
mod order;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{Packet, Publish};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::Counters;
use super::heartbeat::{Beat, Heartbeat};
use super::suspects::Suspects;
use super::window::Window;
use crate::MqttConfig;
use crate::broker_state::StateBoard;
use crate::connection::{Connection, ConnectionError, Received};
use crate::session::Session;
use lost::refuse_all;
pub(super) use order::Order;
use order::{Sent, What};

/// How long to wait for the last PUBACKs after shutdown has begun.
const FAREWELL: Duration = Duration::from_secs(2);

/// How many orders are taken from the queue before the socket is served.
const ORDERS_A_TURN: usize = 256;

/// One connection of a publisher, across all its reconnects.
pub(super) struct Link {
    config: MqttConfig,
    session: Session,
    number: usize,
    queue: mpsc::Receiver<Order>,
    /// Taken from the queue, but it must be alone in flight, or wait for one that must.
    held: Option<Order>,
    window: Window<Sent>,
    suspects: Suspects,
    heartbeat: Heartbeat,
    beat: Arc<Beat>,
    board: Arc<StateBoard>,
    counters: Arc<Counters>,
}

impl Link {
    pub(super) fn new(
        config: &MqttConfig,
        session: Session,
        number: usize,
        queue: mpsc::Receiver<Order>,
        (beat, largest): (Arc<Beat>, usize),
        board: Arc<StateBoard>,
        counters: Arc<Counters>,
    ) -> Self {
        // Its topic is shorter than a channel's; as a packet it is as large as the largest message.
        let shorter = config
            .topic_len()
            .saturating_sub(config.topic_prefix.heartbeat().len());
        let largest = largest.min(config.max_payload()) + shorter;
        Self {
            heartbeat: Heartbeat::new(largest, Instant::now()),
            beat,
            config: config.clone(),
            session,
            number,
            queue,
            held: None,
            window: Window::new(config.window),
            suspects: Suspects::default(),
            board,
            counters,
        }
    }

    pub(super) async fn run(mut self, soft: CancellationToken, hard: CancellationToken) {
        tokio::select! {
            () = self.connect_for_ever(&soft) => {}
            () = hard.cancelled() => {}
        }
        self.fail_all();
        self.board.set(self.number, false);
    }

    async fn connect_for_ever(&mut self, soft: &CancellationToken) {
        while !soft.is_cancelled() {
            let attempt = self.session.connect();
            let lost = tokio::select! {
                connected = attempt => match connected {
                    Ok(connection) => {
                        self.board.set(self.number, true);
                        let Err(lost) = self.serve(connection, soft).await else {
                            return;
                        };
                        self.board.set(self.number, false);
                        self.disconnected(lost.ended_by_broker());
                        lost
                    }
                    Err(error) => error,
                },
                () = refuse_all(&mut self.queue, &self.counters) => return,
                () = soft.cancelled() => return,
            };
            let pause = self.session.lost(&lost);
            tokio::select! {
                () = sleep(pause) => {}
                () = refuse_all(&mut self.queue, &self.counters) => return,
                () = soft.cancelled() => return,
            }
        }
    }

    /// Publishes until the connection ends, which is an error, or until shutdown.
    async fn serve(
        &mut self,
        mut connection: Connection,
        soft: &CancellationToken,
    ) -> Result<(), ConnectionError> {
        let mut no_more = false;
        let mut deadline = None;
        self.heartbeat.connected(Instant::now());
        loop {
            let beats = !soft.is_cancelled() && !no_more;
            if beats {
                self.send_heartbeat(&mut connection)?;
            }
            if self.held.is_some() {
                self.send_held(&mut connection)?;
            }
            if (soft.is_cancelled() || no_more)
                && self.window.is_empty()
                && self.queue.is_empty()
                && self.held.is_none()
            {
                connection.close().await;
                // Without handles there is nothing to do, but a task must not end before shutdown.
                soft.cancelled().await;
                return Ok(());
            }
            let room = !self.window.is_full() && connection.has_room();
            let takes = !no_more && self.held.is_none() && !self.heartbeat.is_probing() && room;
            // If there is no room for it, whatever makes room wakes this task.
            let room = self.has_room_for_heartbeat(&connection);
            let beat = self.heartbeat.due().filter(|_| beats && room);
            let overdue = self
                .window
                .oldest()
                .map(|oldest| oldest.at + self.config.ack_timeout);
            tokio::select! {
                order = self.queue.recv(), if takes => match order {
                    Some(order) => self.take(order, &mut connection)?,
                    None => no_more = true,
                },
                driven = connection.drive(true) => {
                    driven?;
                    self.receive(&mut connection)?;
                }
                () = sleep_until(overdue.unwrap_or_else(Instant::now)), if overdue.is_some() => {
                    return Err(ConnectionError::Unacknowledged(self.config.ack_timeout));
                }
                () = sleep_until(beat.unwrap_or_else(Instant::now)), if beat.is_some() => {}
                () = soft.cancelled(), if deadline.is_none() => {
                    deadline = Some(Instant::now() + FAREWELL);
                }
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    connection.close().await;
                    return Ok(());
                }
            }
        }
    }

    /// Takes this order and others that are waiting, so that one write carries many.
    fn take(&mut self, first: Order, connection: &mut Connection) -> Result<(), ConnectionError> {
        self.held = Some(first);
        for _ in 0..ORDERS_A_TURN {
            self.send_held(connection)?;
            if self.held.is_some() || self.window.is_full() || !connection.has_room() {
                break;
            }
            match self.queue.try_recv() {
                Ok(order) => self.held = Some(order),
                Err(_empty) => break,
            }
        }
        Ok(())
    }

    /// Whether a heartbeat can be sent now. A probe must be alone in flight.
    fn has_room_for_heartbeat(&self, connection: &Connection) -> bool {
        let room = if self.heartbeat.is_probing() {
            self.window.is_empty()
        } else {
            !self.window.is_full()
        };
        room && connection.has_room()
    }

    /// Sends a heartbeat if one is due and there is room for it.
    fn send_heartbeat(&mut self, connection: &mut Connection) -> Result<(), ConnectionError> {
        let now = Instant::now();
        if self.heartbeat.due().is_none_or(|due| now < due) {
            return Ok(());
        }
        self.heartbeat.prepare(now);
        if !self.has_room_for_heartbeat(connection) {
            return Ok(());
        }
        let mut publish = Publish::from_bytes(
            self.config.topic_prefix.heartbeat(),
            QoS::AtLeastOnce,
            self.heartbeat.send(self.beat.name(), now),
        );
        publish.pkid = self.window.enter(Sent {
            at: now,
            what: What::Heartbeat,
        });
        Ok(connection.send(&Packet::Publish(publish))?)
    }

    /// Sends the held order, unless it or the one in flight must be alone.
    fn send_held(&mut self, connection: &mut Connection) -> Result<(), ConnectionError> {
        if self.heartbeat.is_probing() {
            return Ok(());
        }
        let Some(order) = self.held.take() else {
            return Ok(());
        };
        let must_wait = self.window.oldest().is_some_and(|in_flight| {
            self.suspects.must_go_alone(order.token)
                || in_flight
                    .token()
                    .is_some_and(|token| self.suspects.must_go_alone(token))
        });
        if must_wait || self.window.is_full() {
            self.held = Some(order);
            return Ok(());
        }
        let mut publish = Publish::from_bytes(
            self.config.topic_prefix.topic(order.channel),
            QoS::AtLeastOnce,
            order.payload,
        );
        publish.pkid = self.window.enter(Sent {
            at: Instant::now(),
            what: What::Event {
                token: order.token,
                channel: order.channel,
                reply: order.reply,
            },
        });
        Ok(connection.send(&Packet::Publish(publish))?)
    }

    fn receive(&mut self, connection: &mut Connection) -> Result<(), ConnectionError> {
        while let Some(received) = connection.next()? {
            match received {
                Received::Packet(Packet::PubAck(ack)) => match self.window.acknowledge(ack.pkid) {
                    Some(Sent {
                        what: What::Event { token, reply, .. },
                        ..
                    }) => {
                        self.suspects.acknowledged(token);
                        self.counters.confirmed.fetch_add(1, Relaxed);
                        if reply.send(Ok(())).is_err() {
                            debug!(token = token.0, "nobody waits for this confirmation");
                        }
                    }
                    Some(Sent {
                        what: What::Heartbeat,
                        ..
                    }) => {
                        let found = self.heartbeat.acknowledged(&self.beat, Instant::now());
                        self.note(found);
                    }
                    None => debug!(packet_id = ack.pkid, "PUBACK that nothing waits for"),
                },
                Received::Packet(_) | Received::TooLarge => {
                    return Err(ConnectionError::Unexpected(
                        "not a PUBACK, to a connection that only publishes",
                    ));
                }
            }
        }
        Ok(())
    }
}
