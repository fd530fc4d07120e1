//! A database and a clock for each test.

use chat_model::{ChannelId, NewMessage};
use chat_store::{Append, Appended, PostgresOptions, PostgresStore, Store, StoreError};
use service_kit::clock::{TestClock, Timestamp};
use test_kit::Postgres;
use uuid::Uuid;

/// 2026-11-21T09:00:00Z.
const START: i64 = 1_795_251_600_000;

pub(crate) struct Database {
    pub(crate) url: String,
    pub(crate) clock: TestClock,
}

impl Database {
    /// An empty one of the server that all tests share.
    pub(crate) async fn new() -> Self {
        Self::at(Postgres::shared().await.database().await)
    }

    pub(crate) fn at(url: String) -> Self {
        Self {
            url,
            clock: TestClock::new(Timestamp::from_millis(START)),
        }
    }

    pub(crate) fn options(&self) -> PostgresOptions {
        PostgresOptions::new(&self.url, self.clock.shared())
    }

    pub(crate) async fn open(&self) -> PostgresStore {
        PostgresStore::open(&self.options()).await.unwrap()
    }

    /// Runs SQL on the shared server; lines of values separated by `|`.
    pub(crate) async fn run(&self, sql: &str) -> String {
        let name = self.url.rsplit('/').next().unwrap();
        Postgres::shared().await.run(name, sql).await
    }
}

pub(crate) fn channel(number: u128) -> ChannelId {
    Uuid::from_u128(number).into()
}

pub(crate) fn text(number: u128, text: impl Into<String>) -> Append {
    Append {
        channel: channel(number),
        message: NewMessage::text(text),
        key: None,
        max_event_bytes: 64 * 1024,
    }
}

pub(crate) async fn post(store: &PostgresStore, new: Append) -> Result<u64, StoreError> {
    store.append(new).await.map(|appended| match appended {
        Appended::Stored { seq, .. } | Appended::Repeated { seq, .. } => seq,
    })
}
