use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use chat_model::ChannelId;
use parking_lot::{Mutex, MutexGuard};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{
    Packet, PubAck, Publish, SubAck, Subscribe, SubscribeFilter, SubscribeReasonCode, Unsubscribe,
};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::heartbeat_monitor::HeartbeatMonitor;
use super::registry::{Filter, Registry};
use super::{Counters, Delivery, Standing};
use crate::MqttConfig;
use crate::broker_state::StateBoard;
use crate::complaints::Fault;
use crate::connection::{Connection, ConnectionError, Received};
use crate::session::Session;

/// The most filters in one SUBSCRIBE or UNSUBSCRIBE packet, unless the packet limit allows fewer.
const MAX_FILTERS: usize = 512;

/// What the handles share with the task of one connection.
pub(super) struct Link {
    registry: Mutex<Registry>,
    changed: Notify,
    /// Notified when the standing of a filter has changed; shared by all connections.
    news: Arc<Notify>,
    pub(super) heartbeat_monitor: HeartbeatMonitor,
}

impl Link {
    pub(super) fn new(
        config: &MqttConfig,
        heartbeat_monitor: HeartbeatMonitor,
        news: Arc<Notify>,
    ) -> Self {
        Self {
            registry: Mutex::new(Registry::new(config.linger)),
            changed: Notify::new(),
            news,
            heartbeat_monitor,
        }
    }

    pub(super) fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock()
    }

    /// Wakes the task after a change of the registry.
    pub(super) fn wake(&self) {
        self.changed.notify_one();
    }
}

/// One connection of a subscriber, across all its reconnects.
pub(super) struct LinkTask {
    pub(super) config: MqttConfig,
    pub(super) session: Session,
    pub(super) number: usize,
    pub(super) link: Arc<Link>,
    pub(super) board: Arc<StateBoard>,
    pub(super) counters: Arc<Counters>,
    pub(super) deliveries: mpsc::Sender<Vec<Delivery>>,
    /// The filter that heartbeats match.
    pub(super) heartbeats: Filter,
}

impl LinkTask {
    pub(super) async fn run(mut self, soft: CancellationToken) {
        while !soft.is_cancelled() {
            let connected = tokio::select! {
                connected = self.session.connect() => connected,
                () = soft.cancelled() => break,
            };
            let lost = match connected {
                Ok(connection) => {
                    self.link.registry().connected();
                    self.link.news.notify_one();
                    self.link.heartbeat_monitor.connected(self.session.url());
                    self.board.set(self.number, true);
                    let ended = self.serve(connection, &soft).await;
                    let asked = self.link.registry().unanswered_since().is_some();
                    self.board.set(self.number, false);
                    self.link.registry().disconnected();
                    self.link.news.notify_one();
                    self.link.heartbeat_monitor.excuse(true);
                    self.board.complaints.clear(Fault::Refused, self.number);
                    match ended {
                        Ok(()) => break,
                        Err(error) => {
                            self.counters.disconnects.fetch_add(1, Relaxed);
                            if asked && error.ended_by_broker() {
                                ConnectionError::EndedAtSubscribe
                            } else {
                                error
                            }
                        }
                    }
                }
                Err(error) => error,
            };
            let pause = self.session.lost(&lost);
            tokio::select! {
                () = sleep(pause) => {}
                () = soft.cancelled() => break,
            }
        }
        // The consumer may have left first, but the task must not end before shutdown.
        soft.cancelled().await;
    }

    /// Receives until the connection ends, which is an error, until shutdown, or until nobody takes the
    /// deliveries any longer.
    async fn serve(
        &mut self,
        mut connection: Connection,
        soft: &CancellationToken,
    ) -> Result<(), ConnectionError> {
        let max_filters = self.max_filters();
        let mut batch: Vec<Delivery> = Vec::new();
        loop {
            let next_tick = self.converge(&mut connection, max_filters, batch.is_empty())?;
            tokio::select! {
                driven = connection.drive(batch.is_empty()) => {
                    driven?;
                    if batch.is_empty() {
                        self.receive(&mut connection, &mut batch)?;
                        self.hand_over(&mut batch);
                    }
                }
                room = self.deliveries.reserve(), if !batch.is_empty() => match room {
                    Ok(room) => {
                        room.send(std::mem::take(&mut batch));
                        self.link.registry().excuse_silence(Instant::now());
                        self.link.heartbeat_monitor.excuse(!self.may_hear());
                    }
                    Err(_consumer_gone) => break,
                },
                () = self.link.changed.notified() => {}
                () = sleep_until(next_tick.unwrap_or_else(Instant::now)), if next_tick.is_some() => {}
                () = soft.cancelled() => break,
            }
        }
        connection.close().await;
        Ok(())
    }

    /// Passes on what was received, if there is room. If not, reading pauses until there is.
    fn hand_over(&self, batch: &mut Vec<Delivery>) {
        if batch.is_empty() {
            return;
        }
        match self.deliveries.try_reserve() {
            Ok(room) => room.send(std::mem::take(batch)),
            // A dropped receiver shows when waiting for room.
            Err(_full) => self.link.heartbeat_monitor.excuse(true),
        }
    }

    /// Whether the subscription for heartbeats is live.
    fn may_hear(&self) -> bool {
        let standing = self.link.registry().standing(self.heartbeats);
        matches!(standing, Some(Standing::Live { .. }))
    }

    /// Tells the broker what has changed, as far as the output has room; returns the time of the next
    /// change.
    fn converge(
        &self,
        connection: &mut Connection,
        max_filters: usize,
        reading: bool,
    ) -> Result<Option<Instant>, ConnectionError> {
        let now = Instant::now();
        let mut registry = self.link.registry();
        registry.tick(now);
        let overdue = registry
            .unanswered_since()
            .filter(|_| reading)
            .map(|since| since + self.config.ack_timeout);
        if overdue.is_some_and(|overdue| overdue <= now) {
            return Err(ConnectionError::Unacknowledged(self.config.ack_timeout));
        }
        while connection.has_room() {
            if let Some((packet_id, filters)) = registry.next_unsubscribe(max_filters, now) {
                let packet = Packet::Unsubscribe(Unsubscribe {
                    pkid: packet_id,
                    topics: filters
                        .into_iter()
                        .map(|filter| self.text(filter))
                        .collect(),
                });
                connection.send(&packet)?;
            } else if let Some((packet_id, filters)) = registry.next_subscribe(max_filters, now) {
                let qos = if self.config.subscribe_qos == 0 {
                    QoS::AtMostOnce
                } else {
                    QoS::AtLeastOnce
                };
                let mut subscribe = Subscribe::new_many(
                    filters
                        .into_iter()
                        .map(|filter| SubscribeFilter::new(self.text(filter), qos)),
                );
                subscribe.pkid = packet_id;
                connection.send(&Packet::Subscribe(subscribe))?;
            } else {
                break;
            }
        }
        // Without room, this runs again when something was written.
        let next = connection.has_room().then(|| registry.next_tick());
        let refused = registry.refused();
        drop(registry);
        self.forgive(refused.is_none());
        Ok(next.flatten().into_iter().chain(overdue).min())
    }

    fn text(&self, filter: Filter) -> String {
        match filter {
            Filter::Wildcard => self.config.topic_prefix.filter(),
            Filter::Channel(channel) => self.config.topic_prefix.topic(channel),
            Filter::Heartbeat => self.config.topic_prefix.heartbeat(),
        }
    }

    /// How many filters fit into a SUBSCRIBE below the packet limit (MQTT 3.1.1 §3.8).
    fn max_filters(&self) -> usize {
        let filter = 2 + self.config.topic_len() + 1;
        let head = 1 + 4 + 2;
        ((self.config.max_packet.saturating_sub(head)) / filter).clamp(1, MAX_FILTERS)
    }

    fn receive(
        &self,
        connection: &mut Connection,
        batch: &mut Vec<Delivery>,
    ) -> Result<(), ConnectionError> {
        while let Some(received) = connection.next()? {
            match received {
                Received::Packet(Packet::Publish(publish)) => {
                    if publish.qos == QoS::AtLeastOnce {
                        connection.send(&Packet::PubAck(PubAck::new(publish.pkid)))?;
                    }
                    batch.extend(self.delivery(publish));
                }
                Received::Packet(Packet::SubAck(ack)) => self.answered(&ack),
                Received::Packet(Packet::UnsubAck(_)) => {}
                Received::TooLarge => {
                    self.counters.oversize.fetch_add(1, Relaxed);
                    debug!(
                        limit = self.config.max_packet,
                        "skipped a message over the packet limit"
                    );
                }
                Received::Packet(_) => {
                    return Err(ConnectionError::Unexpected(
                        "to a connection that only subscribes",
                    ));
                }
            }
        }
        Ok(())
    }

    fn delivery(&self, publish: Publish) -> Option<Delivery> {
        let channel = self.channel_of(&publish);
        if channel.is_none() {
            if publish.topic == self.config.topic_prefix.heartbeat() {
                self.link.heartbeat_monitor.heard(&publish.payload);
            } else {
                self.counters.foreign.fetch_add(1, Relaxed);
            }
        }
        Some(Delivery {
            channel: channel?,
            payload: publish.payload,
        })
    }

    fn channel_of(&self, publish: &Publish) -> Option<ChannelId> {
        self.config.topic_prefix.channel(publish.topic.as_bytes())
    }

    fn answered(&self, ack: &SubAck) {
        let taken: Vec<bool> = ack
            .return_codes
            .iter()
            .map(|code| matches!(code, SubscribeReasonCode::Success(_)))
            .collect();
        let mut registry = self.link.registry();
        let answered = registry.answered(ack.pkid, &taken, Instant::now());
        self.counters
            .refused
            .fetch_add(answered.refused.len() as u64, Relaxed);
        let refused = registry.refused();
        drop(registry);
        self.link.news.notify_one();
        if answered.subscribed > 0 && self.may_hear() {
            self.link.heartbeat_monitor.excuse(false);
        }
        match refused {
            Some((count, first)) if !answered.refused.is_empty() => {
                let sentence = self.refusal(count, first);
                let complaints = &self.board.complaints;
                if complaints.raise(Fault::Refused, self.number, sentence.clone()) {
                    warn!(connection = self.session.name(), "{sentence}");
                }
            }
            _ => self.forgive(refused.is_none()),
        }
    }

    /// Clears the complaint about refused filters if none is refused.
    fn forgive(&self, none: bool) {
        if none && self.board.complaints.clear(Fault::Refused, self.number) {
            info!(
                connection = self.session.name(),
                "the broker no longer refuses any filter"
            );
        }
    }

    fn refusal(&self, count: usize, first: Filter) -> String {
        let broker = self.session.url();
        let first = self.text(first);
        let others = match count - 1 {
            0 => String::new(),
            others => format!(" and {others} others"),
        };
        let limit = if self.config.subscribe_qos == 0 {
            "it limits the subscriptions on a connection: raise its limit or `subscribe.connections`, or use the wildcard mode"
        } else {
            "it limits the subscriptions with QoS 1 on a connection (NATS: 64): set `mqtt.subscribe_qos = 0`, or use the wildcard mode"
        };
        format!(
            "{broker} refuses to subscribe to {first}{others}: its access rules do not let this user read there, or {limit}. These channels come from history, up to 2 s late; asking again"
        )
    }
}
