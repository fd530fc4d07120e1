use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chat_model::ChannelId;
use rumqttc::mqttbytes::{
    QoS,
    v4::{
        Packet, PubAck, Publish, SubAck, Subscribe, SubscribeFilter, SubscribeReasonCode,
        Unsubscribe,
    },
};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::registry::{Filter, Registry};
use super::{Counters, Delivery};
use crate::MqttConfig;
use crate::broker_state::StateBoard;
use crate::connection::{Connection, ConnectionError, Received};
use crate::session::Session;

/// Filters in one SUBSCRIBE or UNSUBSCRIBE packet, unless the packet limit allows fewer.
const MAX_FILTERS: usize = 512;

/// What handles share with the task of one connection.
pub(super) struct Shard {
    registry: Mutex<Registry>,
    changed: Notify,
}

impl Shard {
    pub(super) fn new(config: &MqttConfig) -> Self {
        Self {
            registry: Mutex::new(Registry::new(config.linger)),
            changed: Notify::new(),
        }
    }

    pub(super) fn registry(&self) -> MutexGuard<'_, Registry> {
        // A panic while it is held would be a defect of the registry itself; its data is still
        // consistent enough to unsubscribe, and the next reconnect rebuilds everything.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the task after a change of the registry.
    pub(super) fn wake(&self) {
        self.changed.notify_one();
    }
}

/// One connection of a subscriber, through all its reconnects.
pub(super) struct ShardTask {
    pub(super) config: MqttConfig,
    pub(super) session: Session,
    pub(super) number: usize,
    pub(super) shard: Arc<Shard>,
    pub(super) board: Arc<StateBoard>,
    pub(super) counters: Arc<Counters>,
    pub(super) deliveries: mpsc::Sender<Vec<Delivery>>,
}

impl ShardTask {
    pub(super) async fn run(mut self, soft: CancellationToken) {
        while !soft.is_cancelled() {
            let connected = tokio::select! {
                connected = self.session.connect() => connected,
                () = soft.cancelled() => break,
            };
            let lost = match connected {
                Ok(connection) => {
                    self.shard.registry().connected();
                    self.board.set(self.number, true);
                    let ended = self.serve(connection, &soft).await;
                    self.board.set(self.number, false);
                    self.shard.registry().disconnected();
                    match ended {
                        Ok(()) => break,
                        Err(error) => {
                            self.counters.disconnects.fetch_add(1, Relaxed);
                            error
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
        // The consumer may have gone first; the task must not end before shutdown all the same.
        soft.cancelled().await;
    }

    /// Receives until the connection ends, which is an error, or until shutdown, or until nobody
    /// takes the deliveries any more.
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
                    }
                }
                room = self.deliveries.reserve(), if !batch.is_empty() => match room {
                    Ok(room) => {
                        room.send(std::mem::take(&mut batch));
                        self.shard.registry().excuse_silence(Instant::now());
                    }
                    Err(_consumer_gone) => break,
                },
                () = self.shard.changed.notified() => {}
                () = sleep_until(next_tick.unwrap_or_else(Instant::now)), if next_tick.is_some() => {}
                () = soft.cancelled() => break,
            }
        }
        connection.close().await;
        Ok(())
    }

    /// Tells the broker what has changed, as far as the output has room; gives the time of the
    /// next change.
    fn converge(
        &self,
        connection: &mut Connection,
        max_filters: usize,
        reading: bool,
    ) -> Result<Option<Instant>, ConnectionError> {
        let now = Instant::now();
        let mut registry = self.shard.registry();
        registry.tick(now);
        let overdue = registry
            .unanswered_since()
            .filter(|_| reading)
            .map(|since| since + self.config.ack_timeout);
        if overdue.is_some_and(|overdue| overdue <= now) {
            return Err(ConnectionError::Unacknowledged(self.config.ack_timeout));
        }
        while connection.has_room() {
            if let Some((packet_id, filters)) = registry.next_unsubscribe(max_filters) {
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
        Ok(registry.next_tick().into_iter().chain(overdue).min())
    }

    fn text(&self, filter: Filter) -> String {
        match filter {
            Filter::Wildcard => self.config.topic_prefix.filter(),
            Filter::Channel(channel) => self.config.topic_prefix.topic(channel),
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
            self.counters.foreign.fetch_add(1, Relaxed);
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
        let answered = self
            .shard
            .registry()
            .answered(ack.pkid, &taken, Instant::now());
        if let Some(first) = answered.refused.first() {
            self.counters
                .refused
                .fetch_add(answered.refused.len() as u64, Relaxed);
            warn!(
                refused = answered.refused.len(),
                first = self.text(*first),
                "the broker refuses subscriptions; look at its access rules and limits. Asking again"
            );
        }
    }
}
