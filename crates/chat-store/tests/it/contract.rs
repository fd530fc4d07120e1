//! The SQLite store keeps the contract of `Store`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chat_store::contract::{self, Bench, KEPT_BYTES_PER_CHANNEL, KEPT_PER_CHANNEL, MOST_KEYS};
use chat_store::{SqliteOptions, SqliteStore, Store};
use clock::TestClock;

use crate::support;

struct SqliteBench {
    folder: support::Folder,
    options: SqliteOptions,
    last: parking_lot::Mutex<Option<Arc<SqliteStore>>>,
}

impl SqliteBench {
    fn new(change: impl FnOnce(&mut SqliteOptions)) -> Self {
        let folder = support::Folder::new();
        let mut options = folder.options();
        options.retention.max_per_channel = KEPT_PER_CHANNEL;
        options.retention.max_bytes_per_channel = KEPT_BYTES_PER_CHANNEL;
        options.keys.max_count = MOST_KEYS;
        change(&mut options);
        Self {
            folder,
            options,
            last: parking_lot::Mutex::default(),
        }
    }
}

#[async_trait]
impl Bench for SqliteBench {
    async fn open(&self) -> Arc<dyn Store> {
        let store = Arc::new(SqliteStore::open(&self.options).unwrap());
        *self.last.lock() = Some(store.clone());
        store
    }

    fn clock(&self) -> &TestClock {
        &self.folder.clock
    }

    async fn age(&self, _: &Arc<dyn Store>, by: Duration) {
        self.clock().advance(by);
    }

    async fn expire(&self, _: &Arc<dyn Store>) {
        let last = self.last.lock().clone().unwrap();
        last.expire().await.unwrap();
    }
}

#[tokio::test]
async fn sqlite_keeps_the_contract() {
    contract::all(|| SqliteBench::new(|_| ())).await;
    contract::room(|| SqliteBench::new(|_| ())).await;
}

/// The bounds at their smallest: heads fall out of the cache all the time, batches hold two.
#[tokio::test]
async fn sqlite_keeps_the_contract_with_little_memory() {
    let little = || {
        SqliteBench::new(|options| {
            options.cached_channels = 2;
            options.batch = 2;
            options.readers = 1;
            options.queue_bytes = 1 << 20;
        })
    };
    contract::all(little).await;
    contract::room(little).await;
}
