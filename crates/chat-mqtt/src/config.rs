use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chat_model::TopicPrefix;
use serde::{Deserialize, Serialize};
use service_kit::config::{ConfigError, Secret, duration, size};
use service_kit::tls::{self, TlsError};

use crate::BrokerUrls;
use crate::packet_size::publish_size;

/// The `[mqtt]` table of a service's configuration. [`DEFAULTS`](Self::DEFAULTS) describes each key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MqttConfig {
    /// Where the broker listens, or each node of it.
    pub url: BrokerUrls,
    /// PEM file of the authorities that may have signed the broker's certificate; empty means the
    /// system's.
    pub ca_file: String,
    /// The prefix of all topics.
    pub topic_prefix: TopicPrefix,
    /// The prefix of client ids. With at most 4 characters, client ids fit into the 23 bytes that every
    /// broker must accept (MQTT 3.1.1 §3.1.3.1). No broker in use refuses longer ones.
    pub client_id_prefix: String,
    /// User name; empty means no log-in.
    pub username: String,
    /// Password for the user name.
    pub password: Secret<String>,
    /// How long the broker may be silent; between 1 s and 18 h.
    #[serde(with = "duration")]
    pub keep_alive: Duration,
    /// How long connecting may take, including the CONNACK.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// How long a SUBACK or PUBACK may take before the connection counts as lost.
    #[serde(with = "duration")]
    pub ack_timeout: Duration,
    /// The largest MQTT packet in bytes, in both directions.
    #[serde(with = "size")]
    pub max_packet: usize,
    /// How many publishes may wait for their PUBACK on one connection.
    pub window: u16,
    /// Quality of service of subscriptions, 0 or 1.
    pub subscribe_qos: u8,
    /// How long a channel stays subscribed after its last watcher has left.
    #[serde(with = "duration")]
    pub linger: Duration,
    /// How many received batches may wait for the consumer.
    pub receive_buffer: usize,
}

/// The smallest `max_packet` that makes sense: below it, not even an empty event would fit.
const MIN_PACKET: usize = 1024;

/// The largest packet that MQTT can express (MQTT 3.1.1 §2.2.3).
const MAX_PACKET: usize = 268_435_455;

impl MqttConfig {
    /// The defaults as commented TOML, without a table header: services put these lines below
    /// `[mqtt]` in their own defaults file.
    pub const DEFAULTS: &str = include_str!("../mqtt.default.toml");

    /// Checks what the types cannot express. Call it once, at start. `table` is the name of the table,
    /// for the error text.
    ///
    /// # Errors
    /// Names the key and what it must be.
    pub fn validate(&self, table: &str) -> Result<(), ConfigError> {
        let refuse =
            |key: &str, reason: &str| Err(ConfigError::invalid(&format!("{table}.{key}"), reason));
        let id = &self.client_id_prefix;
        if id.len() > 64
            || !id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        {
            return refuse(
                "client_id_prefix",
                "must be at most 64 letters, digits and hyphens",
            );
        }
        if !self.ca_file.is_empty() && !self.url.any_tls() {
            return refuse(
                "ca_file",
                "is only for TLS: the address in `url` must begin with mqtts://",
            );
        }
        if self.username.is_empty() && !self.password.reveal().is_empty() {
            return refuse("password", "needs a `username` as well");
        }
        if self.keep_alive < Duration::from_secs(1) || self.keep_alive > Duration::from_secs(64_800)
        {
            return refuse("keep_alive", "must be between 1s and 18h");
        }
        if self.connect_timeout.is_zero() {
            return refuse("connect_timeout", "must not be zero");
        }
        if self.ack_timeout.is_zero() {
            return refuse("ack_timeout", "must not be zero");
        }
        if !(MIN_PACKET..=MAX_PACKET).contains(&self.max_packet) {
            return refuse("max_packet", "must be between 1KiB and 255MiB");
        }
        if self.window == 0 || self.window > 60_000 {
            return refuse("window", "must be between 1 and 60000");
        }
        if self.subscribe_qos > 1 {
            return refuse("subscribe_qos", "must be 0 or 1");
        }
        if !(1..=100_000).contains(&self.receive_buffer) {
            return refuse("receive_buffer", "must be between 1 and 100000");
        }
        Ok(())
    }

    /// Whom connections trust; `None` if none uses TLS. Call it once before the start, so that a file
    /// that cannot be used is reported then. Connections read the file again at each attempt until it can
    /// be used.
    ///
    /// # Errors
    /// When a connection uses TLS and there is no authority to trust.
    pub fn trust(&self) -> Result<Option<Arc<rustls::ClientConfig>>, TlsError> {
        if !self.url.any_tls() {
            return Ok(None);
        }
        let file = (!self.ca_file.is_empty()).then(|| Path::new(&self.ca_file));
        tls::client(file).map(Some)
    }

    /// The longest payload in bytes that can be published to a channel: `max_packet` less the topic and
    /// the packet's header. Callers must check this before they commit.
    pub fn max_payload(&self) -> usize {
        let topic = self.topic_len();
        self.max_packet
            .saturating_sub(publish_size(topic, self.max_packet) - self.max_packet)
    }

    /// The length in bytes of every channel's topic.
    pub(crate) fn topic_len(&self) -> usize {
        self.topic_prefix.topic(uuid::Uuid::nil().into()).len()
    }

    pub(crate) fn keep_alive_seconds(&self) -> u16 {
        // Normally validated; otherwise this is the nearest value that MQTT can express.
        u16::try_from(self.keep_alive.as_secs())
            .unwrap_or(u16::MAX)
            .max(1)
    }

    pub(crate) fn login(&self) -> Option<(&str, &str)> {
        (!self.username.is_empty())
            .then(|| (self.username.as_str(), self.password.reveal().as_str()))
    }
}

impl Default for MqttConfig {
    fn default() -> Self {
        Self {
            url: BrokerUrls::default(),
            ca_file: String::new(),
            topic_prefix: TopicPrefix::default(),
            client_id_prefix: "hark".to_owned(),
            username: String::new(),
            password: Secret::default(),
            keep_alive: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            ack_timeout: Duration::from_secs(30),
            max_packet: 256 * 1024,
            window: 1000,
            subscribe_qos: 1,
            linger: Duration::from_secs(10),
            receive_buffer: 64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_defaults_are_the_defaults() {
        let config: MqttConfig =
            service_kit::config::load(MqttConfig::DEFAULTS, None, "HARK_", []).unwrap();
        assert_eq!(config, MqttConfig::default());
        config.validate("mqtt").unwrap();
    }

    #[test]
    fn the_longest_payload_just_fits() {
        for max_packet in [1024, 20_000, 256 * 1024, 3_000_000] {
            let config = MqttConfig {
                max_packet,
                ..MqttConfig::default()
            };
            let size = publish_size(config.topic_len(), config.max_payload());
            assert!(
                size <= max_packet && max_packet - size <= 2,
                "{max_packet} {size}"
            );
        }
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_key() {
        let refused = |change: fn(&mut MqttConfig), key: &str| {
            let mut config = MqttConfig::default();
            change(&mut config);
            let error = config.validate("mqtt").unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        };
        refused(|config| config.window = 0, "mqtt.window");
        refused(|config| config.max_packet = 10, "mqtt.max_packet");
        refused(|config| config.subscribe_qos = 2, "mqtt.subscribe_qos");
        refused(
            |config| config.keep_alive = Duration::ZERO,
            "mqtt.keep_alive",
        );
        refused(
            |config| config.client_id_prefix = "a/b".to_owned(),
            "mqtt.client_id_prefix",
        );
        refused(
            |config| config.ca_file = "/etc/ca.pem".to_owned(),
            "mqtt.ca_file",
        );
        refused(
            |config| config.password = Secret::new("x".to_owned()),
            "mqtt.password",
        );
    }
}
