//! The settings of the store, and opening it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chat_store::{
    KeyMemory, OpenError, PostgresOptions, PostgresStore, Retention, SqliteOptions, SqliteStore,
    Store, StoreError, postgres,
};
use clock::SharedClock;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use service_kit::config::{ConfigError, Secret, duration, size};

/// The `[store]` table of the configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents every key, once")]
pub struct StoreConfig {
    pub engine: Engine,
    pub dir: PathBuf,
    #[serde(with = "duration")]
    pub max_age: Duration,
    pub max_per_channel: u64,
    #[serde(with = "size")]
    pub max_bytes: u64,
    #[serde(
        deserialize_with = "optional_size",
        serialize_with = "write_optional_size"
    )]
    pub max_bytes_per_channel: Option<u64>,
    #[serde(
        deserialize_with = "optional_size",
        serialize_with = "write_optional_size"
    )]
    pub max_file_bytes: Option<u64>,
    #[serde(with = "size")]
    pub reserve_bytes: u64,
    #[serde(with = "duration")]
    pub keys_max_age: Duration,
    pub keys_max_count: u64,
    #[serde(with = "duration")]
    pub keys_min_age: Duration,
    pub readers: usize,
    pub postgres: PostgresConfig,
}

/// Where messages are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// In a folder on this machine, for one process.
    Sqlite,
    /// In a database that several processes can share.
    Postgres,
}

/// The `[store.postgres]` table of the configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents every key, once")]
pub struct PostgresConfig {
    pub url: DatabaseUrl,
    pub password: Secret<String>,
    pub tls: bool,
    pub ca_file: PathBuf,
    pub connections: usize,
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    #[serde(with = "duration")]
    pub statement_timeout: Duration,
    pub migrate: bool,
}

/// A URL that is shown without its password.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct DatabaseUrl(String);

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = || {
            let (scheme, rest) = self.0.split_once("://")?;
            let (user, place) = rest.rsplit_once('@')?;
            let (user, _password) = user.split_once(':')?;
            Some((scheme, user, place))
        };
        match parts() {
            Some((scheme, user, place)) => write!(f, "{scheme}://{user}:***@{place}"),
            None => f.write_str(&self.0),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for DatabaseUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl StoreConfig {
    /// Checks what types cannot say. `message` is the largest event, in bytes.
    pub(crate) fn validate(&self, message: usize) -> Result<(), ConfigError> {
        // 0 is no limit elsewhere; here it would delete all but the newest message of each channel.
        let least = message as u64;
        let fits = size::format(least);
        if self.max_bytes < least {
            return Err(ConfigError::invalid(
                "store.max_bytes",
                format!(
                    "must be at least {fits}, `limits.message`; there is no value for no limit"
                ),
            ));
        }
        if self.max_bytes_per_channel.is_some_and(|most| most < least) {
            return Err(ConfigError::invalid(
                "store.max_bytes_per_channel",
                format!(
                    "must be at least {fits}, `limits.message`; leave it out for a tenth of \
                     `store.max_bytes`"
                ),
            ));
        }
        Ok(())
    }

    /// Opens the store.
    ///
    /// # Errors
    /// As [`SqliteStore::open`] and [`PostgresStore::open`].
    pub async fn open(&self, clock: SharedClock) -> Result<Arc<dyn Store>, OpenError> {
        match self.engine {
            Engine::Postgres => Ok(Arc::new(PostgresStore::open(&self.postgres(clock)).await?)),
            Engine::Sqlite => {
                let options = self.sqlite(clock);
                let opened = tokio::task::spawn_blocking(move || SqliteStore::open(&options));
                let store = opened.await.map_err(|died| StoreError::Unavailable {
                    reason: format!("opening it failed: {died}"),
                })??;
                Ok(Arc::new(store))
            }
        }
    }

    /// Migrates the store to the current format, if necessary. A folder is also migrated whenever it is
    /// opened.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn migrate(&self, clock: SharedClock) -> Result<(), OpenError> {
        match self.engine {
            Engine::Postgres => postgres::migrate(&self.postgres(clock)).await,
            Engine::Sqlite => {
                self.open(clock).await?.close().await;
                Ok(())
            }
        }
    }

    /// Gives every log a new epoch, in a folder that no service has open or in a database. Returns the number
    /// of logs; `None` if they have new epochs but could not be counted.
    ///
    /// # Errors
    /// As [`chat_store::new_epoch`] and [`postgres::new_epoch`].
    pub async fn new_epoch(&self, clock: SharedClock) -> Result<Option<u64>, OpenError> {
        match self.engine {
            Engine::Postgres => postgres::new_epoch(&self.postgres(clock)).await,
            Engine::Sqlite => chat_store::new_epoch(&self.dir, &clock).map(Some),
        }
    }

    fn postgres(&self, clock: SharedClock) -> PostgresOptions {
        let postgres = &self.postgres;
        let password = postgres.password.reveal();
        let ca_file = &postgres.ca_file;
        let mut options = PostgresOptions::new(&postgres.url.0, clock);
        options.password = (!password.is_empty()).then(|| password.clone());
        options.tls = postgres.tls;
        options.ca_file = (!ca_file.as_os_str().is_empty()).then(|| ca_file.clone());
        options.connections = postgres.connections;
        options.connect_timeout = postgres.connect_timeout;
        options.statement_timeout = postgres.statement_timeout;
        options.migrate = postgres.migrate;
        options.retention = self.retention();
        options.keys = self.key_memory();
        options
    }

    fn sqlite(&self, clock: SharedClock) -> SqliteOptions {
        SqliteOptions {
            retention: self.retention(),
            keys: self.key_memory(),
            readers: self.readers,
            max_file_bytes: self.max_file_bytes,
            reserve_bytes: self.reserve_bytes,
            ..SqliteOptions::new(&self.dir, clock)
        }
    }

    fn retention(&self) -> Retention {
        Retention {
            max_age: self.max_age,
            max_per_channel: self.max_per_channel,
            max_bytes: self.max_bytes,
            max_bytes_per_channel: self
                .max_bytes_per_channel
                .unwrap_or((self.max_bytes / 10).max(1)),
        }
    }

    fn key_memory(&self) -> KeyMemory {
        KeyMemory {
            max_age: self.keys_max_age,
            max_count: self.keys_max_count,
            min_age: self.keys_min_age,
        }
    }
}

fn optional_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    size::parse(&text)
        .map(Some)
        .map_err(serde::de::Error::custom)
}

fn write_optional_size<S: Serializer>(
    bytes: &Option<u64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&bytes.map_or_else(String::new, size::format))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_of_a_url_is_not_shown() {
        for (url, shown) in [
            (
                "postgres://hark:s@c:r@db1,db2:5433/chat",
                "postgres://hark:***@db1,db2:5433/chat",
            ),
            ("postgres://hark@db/chat", "postgres://hark@db/chat"),
            ("postgres:///chat", "postgres:///chat"),
        ] {
            let url = DatabaseUrl(url.to_owned());
            assert_eq!(
                (url.to_string(), format!("{url:?}")),
                (shown.to_owned(), shown.to_owned())
            );
        }
    }
}
