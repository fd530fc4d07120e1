//! A folder and a clock for each test.

use chat_store::{SqliteOptions, SqliteStore, Store};
use clock::TestClock;

use crate::posts::{clock, post, text};

pub(crate) struct Folder {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) clock: TestClock,
}

impl Folder {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            clock: clock(),
        }
    }

    pub(crate) fn options(&self) -> SqliteOptions {
        SqliteOptions::new(self.dir.path(), self.clock.shared())
    }

    pub(crate) fn open(&self) -> SqliteStore {
        SqliteStore::open(&self.options()).unwrap()
    }

    /// Posts so many messages to channel 1, and closes.
    pub(crate) async fn fill(&self, count: u64, size: usize) {
        let store = self.open();
        for number in 0..count {
            let words = format!("{number} {}", "x".repeat(size));
            post(&store, text(1, words)).await.unwrap();
        }
        store.close().await;
    }

    fn database(&self) -> std::path::PathBuf {
        self.dir.path().join("store.sqlite3")
    }

    /// Changes the database of a store that is closed.
    pub(crate) fn change(&self, sql: &str) {
        let database = rusqlite::Connection::open(self.database()).unwrap();
        database.execute_batch(sql).unwrap();
    }

    /// The bytes that a question finds in the database of a store that is closed.
    pub(crate) fn ask(&self, sql: &str) -> Vec<u8> {
        let database = rusqlite::Connection::open(self.database()).unwrap();
        database.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// How many rows a table has in the database of a store that is closed.
    pub(crate) fn count(&self, table: &str) -> u64 {
        let database = rusqlite::Connection::open(self.database()).unwrap();
        let count = format!("SELECT count(*) FROM {table}");
        database.query_row(&count, [], |row| row.get(0)).unwrap()
    }

    /// Makes the leaves of tables and indexes unreadable that have these bytes.
    pub(crate) fn lose_pages(&self, needle: &[u8]) {
        let mut bytes = std::fs::read(self.database()).unwrap();
        let mut lost = 0;
        for page in bytes.chunks_exact_mut(4096) {
            let has_it = page.windows(needle.len()).any(|part| part == needle);
            if has_it && matches!(page[0], 0x0a | 0x0d) {
                page[..16].fill(0xee);
                lost += 1;
            }
        }
        assert!(lost > 0, "no leaf has it");
        std::fs::write(self.database(), bytes).unwrap();
    }
}
