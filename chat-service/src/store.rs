//! Which store, and how it is kept.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chat_store::{KeyMemory, Retention, SqliteOptions, SqliteStore, Store, StoreError};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use service_kit::clock::SharedClock;
use service_kit::config::{duration, size};

/// The `[store]` table.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents every key, once")]
pub struct StoreConfig {
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
    pub max_file_bytes: Option<u64>,
    #[serde(with = "duration")]
    pub keys_max_age: Duration,
    pub keys_max_count: u64,
    #[serde(with = "duration")]
    pub keys_min_age: Duration,
    pub readers: usize,
}

impl StoreConfig {
    /// Opens the store.
    ///
    /// # Errors
    /// As [`SqliteStore::open`].
    pub async fn open(&self, clock: SharedClock) -> Result<Arc<dyn Store>, StoreError> {
        let options = self.sqlite(clock);
        let opened = tokio::task::spawn_blocking(move || SqliteStore::open(&options));
        let store = opened.await.map_err(|died| StoreError::Unavailable {
            reason: format!("opening it failed: {died}"),
        })??;
        Ok(Arc::new(store))
    }

    fn sqlite(&self, clock: SharedClock) -> SqliteOptions {
        SqliteOptions {
            retention: self.retention(),
            keys: self.key_memory(),
            readers: self.readers,
            max_file_bytes: self.max_file_bytes,
            ..SqliteOptions::new(&self.dir, clock)
        }
    }

    fn retention(&self) -> Retention {
        Retention {
            max_age: self.max_age,
            max_per_channel: self.max_per_channel,
            max_bytes: self.max_bytes,
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
