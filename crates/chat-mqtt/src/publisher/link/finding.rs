//! Tells the operator what a connection's first heartbeat has shown.

use tracing::warn;

use super::Link;
use crate::BrokerUrl;
use crate::complaints::Fault;
use crate::publisher::heartbeat::Finding;

impl Link {
    /// Tells the operator what a connection's first heartbeat has shown.
    pub(super) fn note(&self, found: Option<Finding>) {
        let complaints = &self.board.complaints;
        let broker = self.session.url();
        let (fault, sentence) = match found {
            None => return,
            Some(Finding::Fine) => {
                complaints.clear(Fault::PacketLimit, self.number);
                complaints.clear(Fault::Unwelcome, self.number);
                return;
            }
            Some(Finding::TooLarge) => {
                complaints.clear(Fault::Unwelcome, self.number);
                (
                    Fault::PacketLimit,
                    too_large(broker, self.heartbeat.largest()),
                )
            }
            Some(Finding::Unwelcome) => (
                Fault::Unwelcome,
                unwelcome(broker, &self.config.topic_prefix.heartbeat()),
            ),
        };
        if complaints.raise(fault, self.number, sentence.clone()) {
            warn!(connection = self.session.name(), "{sentence}");
        }
    }
}

fn too_large(broker: &BrokerUrl, bytes: usize) -> String {
    format!(
        "{broker} ends the connection at a message of {bytes} bytes, the largest that `limits.message` allows: raise the broker's limit (mosquitto: max_packet_size; RabbitMQ: max_message_size; NATS: max_payload; Hark's own: max_packet) or lower `limits.message`. Larger messages reach listeners late, from history"
    )
}

fn unwelcome(broker: &BrokerUrl, topic: &str) -> String {
    format!(
        "{broker} ends the connection at the smallest message on {topic}: let chat-service's user publish there. Without this, no node notices when the broker passes nothing on"
    )
}
