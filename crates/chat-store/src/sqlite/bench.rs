//! The tables without the store's threads, for tests that choose what happens in which order.

use std::path::PathBuf;

use chat_model::{ChannelId, NewMessage};
use rusqlite::Connection;
use uuid::Uuid;

use super::append::{Batch, Moment};
use super::database::{Database, Failure};
use super::keys::KeyRules;
use super::memory::Memory;
use super::retention::{ChannelLimits, Progress, Sweeper};
use super::schema::prepare;
use super::sync::Syncs;
use crate::{Append, Appended, KeyMemory, Owner, StoreError};

const FILE: &str = "hark.db";

pub(super) struct Tables {
    dir: tempfile::TempDir,
    pub(super) connection: Connection,
    pub(super) memory: Memory,
}

pub(super) fn channel(number: u128) -> ChannelId {
    Uuid::from_u128(number).into()
}

pub(super) fn text(number: u128) -> Append {
    Append {
        channel: channel(number),
        message: NewMessage::text("x"),
        key: None,
        owner: Owner::default(),
        max_event_bytes: 64 * 1024,
    }
}

impl Tables {
    pub(super) fn new(cached_channels: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let connection = prepare(&dir.path().join(FILE), None).unwrap();
        let memory = Memory::load(&connection, cached_channels).unwrap();
        Self {
            dir,
            connection,
            memory,
        }
    }

    /// One batch, at this reading of the expiry clock.
    pub(super) fn store(
        &mut self,
        messages: &[Append],
        limits: ChannelLimits,
        expiry: u64,
    ) -> Vec<Result<Appended, StoreError>> {
        let rules = KeyRules::new(&KeyMemory::default());
        let moment = Moment { now: 1, expiry };
        let (connection, memory) = (&self.connection, &mut self.memory);
        let mut batch = Batch::begin(connection, memory, &rules, limits, moment).unwrap();
        let outcomes = messages.iter().map(|new| batch.append(new).unwrap());
        let outcomes = outcomes.collect();
        batch.finish().unwrap();
        outcomes
    }

    /// One step of retention, with the writer's transactions.
    pub(super) fn step(&mut self, sweeper: &mut Sweeper, expiry: u64) -> Result<Progress, Failure> {
        let path = self.path();
        let connection = prepare(&path, None).unwrap();
        let mut database = Database::new(path, connection, None, 10, Syncs::default());
        let progress = sweeper.step(&mut database, expiry);
        database
            .read(|connection, memory| {
                let loaded = Memory::load(connection, 10)?;
                assert_eq!(memory.empty_entries, loaded.empty_entries);
                assert_eq!(memory.new_places, loaded.new_places);
                self.memory = loaded;
                Ok(())
            })
            .unwrap();
        progress
    }

    pub(super) fn path(&self) -> PathBuf {
        self.dir.path().join(FILE)
    }

    /// Makes the leaves of tables and indexes unreadable that have these bytes.
    pub(super) fn lose_pages(&mut self, needle: &[u8]) {
        let folded: i64 = self
            .connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
            .unwrap();
        assert_eq!(folded, 0);
        let mut bytes = std::fs::read(self.path()).unwrap();
        for page in bytes.chunks_exact_mut(4096) {
            let has_it = page.windows(needle.len()).any(|part| part == needle);
            if has_it && matches!(page[0], 0x0a | 0x0d) {
                page[..16].fill(0xee);
            }
        }
        std::fs::write(self.path(), bytes).unwrap();
        self.connection = prepare(&self.path(), None).unwrap();
        self.memory = Memory::load(&self.connection, 10).unwrap();
    }
}
