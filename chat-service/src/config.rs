use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use chat_mqtt::MqttConfig;
use chat_store::PageLimit;
use http_server::access::AccessConfig;
use http_server::client_address::{Networks, TrustedProxies};
use http_server::http::{HttpOptions, Shares};
use serde::{Deserialize, Serialize};
use service_kit::config::{self, ConfigError, duration, listen, size};
use service_kit::telemetry::LogConfig;
use service_kit::tls::TlsConfig;

use crate::rate_limit::{Limits, Rate};
use crate::store::StoreConfig;

/// What an event has besides what was said: keys, ids, time, type. An event of an empty text takes
/// 210 bytes.
const SMALLEST_MESSAGE_LIMIT: usize = 1024;

/// Largest body of a question for heads, in bytes. 1,000 channels take 39 KB; the rest is for white space.
pub(crate) const LARGEST_QUESTION: usize = 64 * 1024;

/// The configuration of chat-service. `config.default.toml` describes each key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents every key, once")]
pub struct Config {
    #[serde(with = "listen")]
    pub listen: SocketAddr,
    pub tls: TlsConfig,
    pub operations: OperationsConfig,
    pub log: LogConfig,
    pub store: StoreConfig,
    pub limits: LimitsConfig,
    pub http: HttpConfig,
    pub access: AccessConfig,
    pub outbox: OutboxConfig,
    pub mqtt: MqttConfig,
}

/// The `[operations]` table.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents every key, once")]
pub struct OperationsConfig {
    #[serde(with = "listen")]
    pub listen: SocketAddr,
}

/// The `[limits]` table.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents every key, once")]
pub struct LimitsConfig {
    #[serde(with = "size")]
    pub message: usize,
    pub posts_per_second: f64,
    pub posts_burst: u32,
    #[serde(with = "size")]
    pub bytes_per_second: usize,
    #[serde(with = "size")]
    pub bytes_burst: usize,
    pub reads_per_second: f64,
    pub reads_burst: u32,
    pub nodes: Networks,
    #[serde(with = "size")]
    pub bodies: usize,
    #[serde(with = "size")]
    pub answers: usize,
    pub limit_loopback: bool,
    pub trusted_proxies: TrustedProxies,
}

/// The `[http]` table.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents every key, once")]
pub struct HttpConfig {
    pub max_connections: usize,
    pub max_connections_per_address: usize,
    #[serde(with = "duration")]
    pub header_timeout: Duration,
    #[serde(with = "duration")]
    pub body_timeout: Duration,
    #[serde(with = "duration")]
    pub idle_timeout: Duration,
    #[serde(with = "duration")]
    pub write_stall: Duration,
}

/// The `[outbox]` table.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents every key, once")]
pub struct OutboxConfig {
    pub connections: usize,
    pub in_flight: usize,
    #[serde(with = "size")]
    pub in_flight_bytes: usize,
}

/// The defaults as commented TOML.
pub fn default_toml() -> String {
    format!(
        "{}[mqtt]\n{}",
        include_str!("../config.default.toml"),
        MqttConfig::DEFAULTS
    )
}

impl Config {
    /// The defaults, then `file`, then the variables of `env` that begin with `HARK_`.
    ///
    /// # Errors
    /// [`ConfigError`], which names the key and says what to change.
    pub fn load(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let config: Self = config::load(&default_toml(), file, "HARK_", env)?;
        config.validate()?;
        Ok(config)
    }

    /// Checks what types cannot say. [`load`](Self::load) and [`Server::bind`](crate::Server::bind)
    /// have it done.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with the key.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.mqtt.validate("mqtt")?;
        self.access.validate()?;
        self.store.validate(self.limits.message)?;
        if self.limits.message < SMALLEST_MESSAGE_LIMIT {
            return Err(ConfigError::invalid(
                "limits.message",
                "must be at least 1KiB",
            ));
        }
        if self.limits.message > self.mqtt.max_payload() {
            let fits = size::format(self.mqtt.max_payload() as u64);
            return Err(ConfigError::invalid(
                "limits.message",
                format!(
                    "must be at most {fits} to fit into `mqtt.max_packet`; lower it or raise that"
                ),
            ));
        }
        let limits = &self.limits;
        for (kind, rate, burst) in [
            ("posts", limits.posts_per_second, limits.posts_burst),
            ("reads", limits.reads_per_second, limits.reads_burst),
        ] {
            if !rate.is_finite() || rate < 0.0 {
                let key = format!("limits.{kind}_per_second");
                return Err(ConfigError::invalid(&key, "must be 0 or more"));
            }
            if rate > 0.0 && burst == 0 {
                let key = format!("limits.{kind}_burst");
                return Err(ConfigError::invalid(&key, "must be at least 1"));
            }
        }
        // One address has half of it, and of that more than one body should fit.
        let body = limits.message.max(LARGEST_QUESTION);
        if limits.bodies < 4 * body {
            let fits = size::format(4 * body as u64);
            return Err(ConfigError::invalid(
                "limits.bodies",
                format!(
                    "must be at least {fits}, four of the largest bodies: posts have up to \
                     `limits.message`, questions for heads {}",
                    size::format(LARGEST_QUESTION as u64)
                ),
            ));
        }
        let page = PageLimit::MAX.bytes.max(limits.message);
        if limits.answers < 4 * page {
            let fits = size::format(4 * page as u64);
            return Err(ConfigError::invalid(
                "limits.answers",
                format!("must be at least {fits}, four pages of history"),
            ));
        }
        // A burst that holds no post would refuse each after the first for a long time.
        if self.limits.bytes_per_second > 0 && self.limits.bytes_burst < self.limits.message {
            return Err(ConfigError::invalid(
                "limits.bytes_burst",
                "must be at least `limits.message`",
            ));
        }
        if !(1..=16).contains(&self.outbox.connections) {
            return Err(ConfigError::invalid(
                "outbox.connections",
                "must be between 1 and 16",
            ));
        }
        if self.outbox.in_flight == 0 {
            return Err(ConfigError::invalid(
                "outbox.in_flight",
                "must be at least 1",
            ));
        }
        if self.http.max_connections == 0 {
            return Err(ConfigError::invalid(
                "http.max_connections",
                "must be at least 1",
            ));
        }
        for (key, time) in [
            ("http.header_timeout", self.http.header_timeout),
            ("http.body_timeout", self.http.body_timeout),
            ("http.idle_timeout", self.http.idle_timeout),
            ("http.write_stall", self.http.write_stall),
        ] {
            if time.is_zero() {
                return Err(ConfigError::invalid(key, "must not be zero"));
            }
        }
        Ok(())
    }

    pub(crate) fn http_options(&self) -> HttpOptions {
        HttpOptions {
            header_timeout: self.http.header_timeout,
            body_timeout: self.http.body_timeout,
            idle_timeout: self.http.idle_timeout,
            write_stall: self.http.write_stall,
            max_connections: self.http.max_connections,
            shares: self.shares(),
            ..HttpOptions::default()
        }
    }

    /// Each client's share of the connections.
    fn shares(&self) -> Shares {
        let most = match self.http.max_connections_per_address {
            0 => self.http.max_connections.div_ceil(2),
            most => most,
        };
        Shares {
            most,
            limits_loopback: self.limits.limit_loopback,
            proxies: self.limits.trusted_proxies.clone(),
        }
    }

    pub(crate) fn post_limits(&self) -> Limits {
        let limits = &self.limits;
        Limits {
            requests: rate(limits.posts_per_second, f64::from(limits.posts_burst)),
            bytes: rate(limits.bytes_per_second as f64, limits.bytes_burst as f64),
            limits_loopback: limits.limit_loopback,
        }
    }

    pub(crate) fn read_limits(&self) -> Limits {
        let limits = &self.limits;
        Limits {
            requests: rate(limits.reads_per_second, f64::from(limits.reads_burst)),
            bytes: None,
            limits_loopback: limits.limit_loopback,
        }
    }
}

/// `None`, no limit, if it is 0 a second.
fn rate(per_second: f64, burst: f64) -> Option<Rate> {
    (per_second > 0.0).then_some(Rate { per_second, burst })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, value: &str) -> Result<Config, ConfigError> {
        Config::load(None, [(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn defaults_are_complete_and_printed_ones_can_be_read_again() {
        let config = Config::load(None, []).unwrap();
        assert_eq!(config.limits.message, 64 * 1024);
        assert_eq!(config.store.max_file_bytes, None);
        let printed = config::render(&config).unwrap();
        config::load::<Config>(&printed, None, "HARK_", []).unwrap();
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_key() {
        for (name, value, key) in [
            ("HARK_LIMITS__MESSAGE", "10", "limits.message"),
            ("HARK_LIMITS__MESSAGE", "1MiB", "mqtt.max_packet"),
            (
                "HARK_LIMITS__POSTS_PER_SECOND",
                "-1",
                "limits.posts_per_second",
            ),
            ("HARK_LIMITS__POSTS_BURST", "0", "limits.posts_burst"),
            ("HARK_LIMITS__BYTES_BURST", "1KiB", "limits.bytes_burst"),
            ("HARK_LIMITS__READS_BURST", "0", "limits.reads_burst"),
            ("HARK_LIMITS__BODIES", "100KiB", "limits.bodies"),
            ("HARK_LIMITS__ANSWERS", "3MiB", "limits.answers"),
            ("HARK_LIMITS__NODES", "sse1", "nodes"),
            ("HARK_OUTBOX__CONNECTIONS", "0", "outbox.connections"),
            ("HARK_OUTBOX__IN_FLIGHT", "0", "outbox.in_flight"),
            ("HARK_HTTP__MAX_CONNECTIONS", "0", "http.max_connections"),
            ("HARK_HTTP__BODY_TIMEOUT", "0s", "http.body_timeout"),
            ("HARK_MQTT__WINDOW", "0", "mqtt.window"),
            ("HARK_LISTEN", "somewhere", "listen"),
            ("HARK_LIMITS__TRUSTED_PROXIES", "proxy", "trusted_proxies"),
            ("HARK_STORE__MAX_FILE_BYTES", "much", "max_file_bytes"),
            ("HARK_STORE__MAX_BYTES", "0", "store.max_bytes"),
            (
                "HARK_STORE__MAX_BYTES_PER_CHANNEL",
                "0",
                "leave it out for a tenth of `store.max_bytes`",
            ),
            ("HARK_STORE__ENGINE", "oracle", "engine"),
        ] {
            let text = with(name, value).unwrap_err().to_string();
            assert!(text.contains(key), "{name}={value}: {text}");
        }
    }

    /// However small a post may be, a question for heads needs as much as ever.
    #[test]
    fn bodies_have_room_for_questions_for_heads() {
        let load = |bodies: &str| {
            let settings = [("MESSAGE", "1KiB"), ("BODIES", bodies)];
            let settings =
                settings.map(|(key, value)| (format!("HARK_LIMITS__{key}"), value.into()));
            Config::load(None, settings)
        };
        let text = load("4KiB").unwrap_err().to_string();
        assert!(text.contains("must be at least 256KiB"), "{text}");
        load("256KiB").unwrap();
    }

    #[test]
    fn environment_reaches_every_table() {
        let config = with("HARK_STORE__MAX_FILE_BYTES", "1GiB").unwrap();
        assert_eq!(config.store.max_file_bytes, Some(1 << 30));
        let config = with("HARK_MQTT__TOPIC_PREFIX", "rooms/chat").unwrap();
        assert_eq!(config.mqtt.topic_prefix.to_string(), "rooms/chat");
        let unlimited = with("HARK_LIMITS__POSTS_PER_SECOND", "0").unwrap();
        assert_eq!(unlimited.post_limits().requests, None);
    }
}
