//! A database and a clock for each test.

use chat_store::{PostgresOptions, PostgresStore};
use clock::TestClock;
use test_kit::Postgres;

use crate::posts::clock;

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
            clock: clock(),
        }
    }

    pub(crate) fn options(&self) -> PostgresOptions {
        PostgresOptions::new(&self.url, self.clock.shared())
    }

    pub(crate) async fn open(&self) -> PostgresStore {
        PostgresStore::open(&self.options()).await.unwrap()
    }

    /// Its name on the server.
    pub(crate) fn name(&self) -> &str {
        self.url.rsplit('/').next().unwrap()
    }

    /// Runs SQL on the shared server; lines of values separated by `|`.
    pub(crate) async fn run(&self, sql: &str) -> String {
        let name = self.url.rsplit('/').next().unwrap();
        Postgres::shared().await.run(name, sql).await
    }
}
