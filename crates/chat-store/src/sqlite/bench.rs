//! The tables without the store's threads, for tests that choose what happens in which order.

use chat_model::{ChannelId, NewMessage};
use rusqlite::Connection;
use uuid::Uuid;

use super::append::{Batch, Moment};
use super::keys::KeyRules;
use super::memory::Memory;
use super::retention::ChannelLimits;
use super::schema::prepare;
use crate::{Append, Appended, KeyMemory, Owner, StoreError};

pub(super) struct Tables {
    _dir: tempfile::TempDir,
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
        let connection = prepare(&dir.path().join("hark.db"), None).unwrap();
        let memory = Memory::load(&connection, cached_channels).unwrap();
        Self {
            _dir: dir,
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
}
