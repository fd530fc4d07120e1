use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chat_mqtt::MqttConfig;
use http_server::access::AccessConfig;
use http_server::client_address::TrustedProxies;
use http_server::http_client::{BaseUrl, NotABaseUrl};
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};
use service_kit::config::{self, ConfigError, duration, listen, size};
use service_kit::telemetry::LogConfig;
use service_kit::tls::{self, TlsConfig};

/// All settings of broadcast-sse; `config.default.toml` describes each of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where streams are served.
    #[serde(with = "listen")]
    pub listen: SocketAddr,
    /// Certificate and key, for HTTPS.
    pub tls: TlsConfig,
    /// The operators' listener.
    pub operations: OperationsConfig,
    /// Where history comes from.
    pub history: HistoryConfig,
    /// Which pages may connect.
    pub access: AccessConfig,
    /// What counts as one client.
    pub limits: LimitsConfig,
    /// How channels are subscribed to.
    pub subscribe: SubscribeConfig,
    /// The broker.
    pub mqtt: MqttConfig,
    /// Limits and times of the hub.
    pub hub: HubConfig,
    /// Logging.
    pub log: LogConfig,
}

/// The operators' listener.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperationsConfig {
    /// Its address.
    #[serde(with = "listen")]
    pub listen: SocketAddr,
}

/// Where history comes from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryConfig {
    /// The URLs of the chat-services, separated by commas.
    pub url: String,
    /// The authorities, one of which must have signed their certificates.
    pub ca_file: PathBuf,
    /// The certificate to show if they ask for one.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl HistoryConfig {
    /// The URLs, at least one.
    ///
    /// # Errors
    /// If one is not the URL of a service.
    pub(crate) fn bases(&self) -> Result<Vec<BaseUrl>, ConfigError> {
        let bases = self.url.split(',').map(|url| url.trim().parse());
        bases
            .collect::<Result<_, _>>()
            .map_err(|error: NotABaseUrl| ConfigError::invalid("history.url", error))
    }

    /// Which authorities to trust, and which certificate to show.
    ///
    /// # Errors
    /// If TLS is used and there is no authority to trust, or the certificate cannot be used.
    pub(crate) fn tls(&self) -> Result<Arc<ClientConfig>, ConfigError> {
        if !self.bases()?.iter().any(BaseUrl::is_https) {
            return Ok(tls::trusting_nobody());
        }
        let [ca_file, cert, key] = [&self.ca_file, &self.cert, &self.key]
            .map(|path| (!path.as_os_str().is_empty()).then_some(&**path));
        let tls = match (cert, key) {
            (Some(cert), Some(key)) => tls::client_with_certificate(ca_file, cert, key),
            (None, None) => tls::client(ca_file),
            _ => {
                let why = "and `history.key` belong together: set both, or none";
                return Err(ConfigError::invalid("history.cert", why));
            }
        };
        tls.map_err(|error| {
            ConfigError::invalid("history", format!("cannot be asked by https: {error}"))
        })
    }
}

/// Who counts as one client.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsConfig {
    /// Whether loopback has a share like any other address.
    pub limit_loopback: bool,
    /// Proxies whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: TrustedProxies,
}

/// How channels are subscribed to.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubscribeConfig {
    /// One subscription for all, or one for each.
    pub mode: SubscribeMode,
    /// Connections in per-channel mode.
    pub connections: usize,
}

/// One subscription for all channels, or one for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SubscribeMode {
    /// `<prefix>/+` on one connection.
    Wildcard,
    /// Each channel that somebody listens to.
    PerChannel,
}

/// Bounds and times of the hub.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubConfig {
    /// Streams at a time.
    pub max_streams: usize,
    /// Streams of one client at a time; 0 is half of them.
    pub max_streams_per_address: usize,
    /// Channels in one stream.
    pub max_channels: usize,
    /// Channels in memory.
    pub known_channels: usize,
    /// The most bytes in all rings.
    #[serde(with = "size")]
    pub memory: usize,
    /// Events in one ring.
    pub ring_events: usize,
    /// Bytes in one ring.
    #[serde(with = "size")]
    pub ring_bytes: usize,
    /// The most bytes in shared pages of history.
    #[serde(with = "size")]
    pub page_bytes: usize,
    /// Pages read at the same time.
    pub history_requests: usize,
    /// How long an event may be late.
    #[serde(with = "duration")]
    pub hole_patience: Duration,
    /// How often the head of a quiet channel is checked.
    #[serde(with = "duration")]
    pub head_check: Duration,
    /// How long a channel without listeners is kept.
    #[serde(with = "duration")]
    pub linger: Duration,
    /// How often streams are pinged.
    #[serde(with = "duration")]
    pub ping: Duration,
    /// How long a client may read nothing while there is something to write.
    #[serde(with = "duration")]
    pub write_stall: Duration,
    /// `SO_SNDBUF` of a stream.
    #[serde(with = "size")]
    pub send_buffer: usize,
}

impl HubConfig {
    /// Streams of one client at a time.
    pub(crate) fn streams_per_client(&self) -> usize {
        match self.max_streams_per_address {
            0 => self.max_streams.div_ceil(2),
            most => most,
        }
    }
}

impl Config {
    /// The settings in layers: the built-in defaults, a file, the environment.
    ///
    /// # Errors
    /// The text names the setting and says what to change.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let config: Self = config::load(&Self::defaults(), file, "HARK_", environment)?;
        config.validate()?;
        Ok(config)
    }

    /// The commented defaults as TOML.
    pub fn defaults() -> String {
        format!(
            "{}\n[mqtt]\n{}",
            include_str!("../config.default.toml"),
            MqttConfig::DEFAULTS
        )
    }

    /// Checks what the types cannot express.
    ///
    /// # Errors
    /// The text names the setting and says what to change.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.mqtt.validate("mqtt")?;
        self.access.validate()?;
        self.history.bases()?;
        let counts = [
            ("subscribe.connections", self.subscribe.connections),
            ("hub.max_streams", self.hub.max_streams),
            ("hub.max_channels", self.hub.max_channels),
            ("hub.known_channels", self.hub.known_channels),
            ("hub.ring_events", self.hub.ring_events),
            ("hub.history_requests", self.hub.history_requests),
        ];
        for (key, count) in counts {
            if count == 0 {
                return Err(ConfigError::invalid(key, "must be at least 1"));
            }
        }
        // A cursor for all channels must fit into the request head of a reconnecting browser.
        if self.hub.max_channels > 1_000 {
            return Err(ConfigError::invalid(
                "hub.max_channels",
                "must be at most 1000",
            ));
        }
        // An event of the largest size must fit, or the ring could never hold it.
        if self.hub.ring_bytes < 2 * self.mqtt.max_packet {
            return Err(ConfigError::invalid(
                "hub.ring_bytes",
                "must be at least twice mqtt.max_packet",
            ));
        }
        if self.hub.ping < Duration::from_secs(1) {
            return Err(ConfigError::invalid("hub.ping", "must be at least 1s"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_the_environment_beats_them() {
        let environment = [("HARK_HUB__PING".to_owned(), "5s".to_owned())];
        let config = Config::load(None, environment).unwrap();
        assert_eq!(config.hub.ping, Duration::from_secs(5));
        assert_eq!(config.subscribe.mode, SubscribeMode::Wildcard);
    }

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        for (key, value) in [
            ("HARK_HISTORY__URL", "chat:8080"),
            ("HARK_HISTORY__URL", "http://chat:8080,chat:8081"),
            ("HARK_HUB__RING_BYTES", "1KiB"),
            ("HARK_HUB__MAX_CHANNELS", "0"),
        ] {
            let refused = Config::load(None, [(key.to_owned(), value.to_owned())]).unwrap_err();
            let name = key.to_lowercase().replace("hark_", "").replace("__", ".");
            assert!(refused.to_string().contains(&name), "{refused}");
        }
    }

    #[test]
    fn certificate_without_its_key_is_refused() {
        let environment = [
            ("HARK_HISTORY__URL", "https://chat:8080"),
            ("HARK_HISTORY__CA_FILE", "/nowhere/ca.pem"),
            ("HARK_HISTORY__CERT", "/nowhere/cert.pem"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let mut history = Config::load(None, environment).unwrap().history;
        let refused = |history: &HistoryConfig| history.tls().unwrap_err().to_string();
        assert!(refused(&history).contains("`history.key`"));
        history.key = PathBuf::from("/nowhere/key.pem");
        assert!(refused(&history).contains("/nowhere/ca.pem"));
        // https is not used, so no file is read.
        history.url = "http://chat:8080".to_owned();
        history.tls().unwrap();
    }
}
