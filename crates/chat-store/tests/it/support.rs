//! A folder and a clock for each test.

use chat_store::{SqliteOptions, SqliteStore};
use clock::TestClock;

use crate::posts::clock;

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
}
