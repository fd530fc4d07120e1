//! The PostgreSQL store keeps the contract of `Store`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chat_store::contract::{self, Bench, KEPT_BYTES_PER_CHANNEL, KEPT_PER_CHANNEL, MOST_KEYS};
use chat_store::{PostgresOptions, PostgresStore, Store};
use clock::TestClock;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::support::Database;

struct PostgresBench {
    database: OnceCell<Database>,
    clock: TestClock,
    change: fn(&mut PostgresOptions),
    last: Mutex<Option<Arc<PostgresStore>>>,
}

impl PostgresBench {
    fn new(change: fn(&mut PostgresOptions)) -> Self {
        Self {
            database: OnceCell::new(),
            clock: Database::at(String::new()).clock,
            change,
            last: Mutex::default(),
        }
    }
}

#[async_trait]
impl Bench for PostgresBench {
    async fn open(&self) -> Arc<dyn Store> {
        let database = self.database.get_or_init(Database::new).await;
        let mut options = PostgresOptions::new(&database.url, self.clock.shared());
        options.retention.max_per_channel = KEPT_PER_CHANNEL;
        options.retention.max_bytes_per_channel = KEPT_BYTES_PER_CHANNEL;
        options.keys.max_count = MOST_KEYS;
        (self.change)(&mut options);
        let store = PostgresStore::open(&options).await.unwrap();
        let store = Arc::new(store);
        *self.last.lock() = Some(store.clone());
        store
    }

    fn clock(&self) -> &TestClock {
        &self.clock
    }

    async fn age(&self, _: &Arc<dyn Store>, by: Duration) {
        let database = self.database.get().unwrap();
        let seconds = by.as_secs();
        let older = format!("UPDATE hark.log SET stored = stored - interval '{seconds} s'");
        database.run(&older).await;
    }

    async fn expire(&self, _: &Arc<dyn Store>) {
        let last = self.last.lock().clone().unwrap();
        last.expire().await.unwrap();
    }
}

#[tokio::test]
async fn postgres_keeps_the_contract() {
    contract::all(|| PostgresBench::new(|_| ())).await;
}

#[tokio::test]
async fn postgres_keeps_the_contract_about_room() {
    contract::room(|| PostgresBench::new(|_| ())).await;
}

/// The bounds at their smallest.
#[tokio::test]
async fn postgres_keeps_the_contract_with_little_room() {
    contract::all(|| {
        PostgresBench::new(|options| {
            options.batch = 2;
            options.connections = 1;
            options.queue_bytes = 1 << 20;
        })
    })
    .await;
}
