use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use serde::{Deserialize, Serialize};
use service_kit::config::{self, ConfigError, listen, size};
use service_kit::telemetry::LogConfig;

/// What the `broker` command reads. `config.default.toml` describes each key.
#[derive(Debug, Clone, Serialize)]
pub struct Config {
    /// The broker itself.
    #[serde(flatten)]
    pub broker: BrokerConfig,
    /// Health and metrics.
    pub operations: OperationsConfig,
    /// Logs.
    pub log: LogConfig,
}

impl Config {
    /// The commented defaults; the list of all keys.
    pub const DEFAULTS: &str = include_str!("../config.default.toml");

    /// Reads the defaults, then the file, then `HARK_…` variables.
    ///
    /// # Errors
    /// [`ConfigError`], which names the key and its source.
    pub fn load(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut table = config::load_table(Self::DEFAULTS, file, "HARK_", env)?;
        // One after the other: through `flatten`, errors would lose the names of keys.
        let operations = config::parse(part(&mut table, "operations"))?;
        let log = config::parse(part(&mut table, "log"))?;
        let broker: BrokerConfig = config::parse(table)?;
        broker.validate()?;
        Ok(Self {
            broker,
            operations,
            log,
        })
    }
}

/// Takes a table out; the defaults have it.
fn part(table: &mut toml::Table, name: &str) -> toml::Table {
    match table.remove(name) {
        Some(toml::Value::Table(part)) => part,
        _ => toml::Table::new(),
    }
}

/// The `[operations]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperationsConfig {
    /// Where `/healthz`, `/readyz` and `/metrics` are.
    #[serde(with = "listen")]
    pub listen: SocketAddr,
}

/// The embedded broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BrokerConfig {
    /// Where MQTT clients connect; port 0 takes any free one.
    #[serde(with = "listen")]
    pub listen: SocketAddr,
    /// Whether `listen` may be anything but loopback.
    pub open: bool,
    /// The largest packet in bytes.
    #[serde(with = "size")]
    pub max_packet: usize,
    /// Connections at a time.
    pub max_connections: usize,
    /// Connections at a time from one address; of IPv6, from one network of 64 bits.
    pub max_connections_per_address: usize,
    /// Distinct filters, of all clients together, for the life of the broker.
    pub max_filters: usize,
    /// Distinct topics that clients may publish to, of all together, for the life of the broker.
    pub max_topics: usize,
    /// Subscriptions at a time.
    pub max_subscriptions: usize,
    /// Bytes in one segment of a filter's queue.
    #[serde(with = "size")]
    pub segment_size: usize,
    /// Segments in a filter's queue.
    pub segments: usize,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 1883)),
            open: false,
            max_packet: 512 * 1024,
            max_connections: 1000,
            max_connections_per_address: 500,
            max_filters: 500,
            max_topics: 20_000,
            max_subscriptions: 10_000,
            segment_size: 1024 * 1024,
            segments: 16,
        }
    }
}

impl BrokerConfig {
    /// Checks what types cannot say.
    ///
    /// # Errors
    /// Names the key and what it must be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if !self.open && !self.listen.ip().is_loopback() {
            return Err(ConfigError::invalid(
                "listen",
                format!(
                    "is {}, which other machines can reach, and this broker has no log-in: listen on \
                     127.0.0.1, set `open = true` if everyone there may read and write everything, \
                     or use a broker with users such as mosquitto",
                    self.listen
                ),
            ));
        }
        if !(1024..=128 << 20).contains(&self.max_packet) {
            return Err(ConfigError::invalid(
                "max_packet",
                "must be between 1KiB and 128MiB",
            ));
        }
        if !(1..=100_000).contains(&self.max_connections) {
            return Err(ConfigError::invalid(
                "max_connections",
                "must be between 1 and 100000",
            ));
        }
        if self.max_connections_per_address == 0 {
            return Err(ConfigError::invalid(
                "max_connections_per_address",
                "must be at least 1",
            ));
        }
        for (key, max) in [
            ("max_filters", self.max_filters),
            ("max_topics", self.max_topics),
            ("max_subscriptions", self.max_subscriptions),
        ] {
            if max == 0 {
                return Err(ConfigError::invalid(key, "must be at least 1"));
            }
        }
        // The library panics below 1 KiB and below one segment.
        if !(1024..=1 << 30).contains(&self.segment_size) {
            return Err(ConfigError::invalid(
                "segment_size",
                "must be between 1KiB and 1GiB",
            ));
        }
        if !(1..=10_000).contains(&self.segments) {
            return Err(ConfigError::invalid(
                "segments",
                "must be between 1 and 10000",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(env: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::load(
            None,
            env.iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        )
    }

    #[test]
    fn the_documented_defaults_are_the_defaults() {
        assert_eq!(load(&[]).unwrap().broker, BrokerConfig::default());
    }

    #[test]
    fn other_machines_are_let_in_only_on_purpose() {
        let error = load(&[("HARK_LISTEN", "0.0.0.0:1883")])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("`listen`") && error.contains("open = true"),
            "{error}"
        );
        load(&[("HARK_LISTEN", "0.0.0.0:1883"), ("HARK_OPEN", "true")]).unwrap();
        load(&[("HARK_LISTEN", "[::1]:0")]).unwrap();
    }

    #[test]
    fn unknown_keys_and_bad_values_are_named() {
        for (name, value, key) in [
            ("HARK_LISTENS", "127.0.0.1:1", "listens"),
            ("HARK_LISTEN", "here", "listen"),
            ("HARK_SEGMENT_SIZE", "1B", "segment_size"),
            ("HARK_MAX_PACKET", "much", "max_packet"),
        ] {
            let error = load(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn the_printed_configuration_can_be_read_again() {
        let printed = config::render(&load(&[("HARK_LISTEN", "127.0.0.1:0")]).unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("broker.toml");
        std::fs::write(&file, printed).unwrap();
        assert_eq!(
            Config::load(Some(&file), []).unwrap().broker.listen.port(),
            0
        );
    }
}
