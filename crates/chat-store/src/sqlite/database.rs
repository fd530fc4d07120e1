//! The writer's connection and what a failed transaction means.

use std::collections::HashSet;
use std::path::PathBuf;

use chat_model::ChannelId;
use rusqlite::{Connection, ErrorCode};

use super::failures::is_damage;
use super::memory::{MOST_NEW, Memory};
use super::schema::{Role, connect};
use super::sync::Syncs;
use crate::StoreError;

/// Why a transaction did not happen, or perhaps did.
#[derive(Debug)]
pub(super) enum Failure {
    /// It failed before its COMMIT could take effect.
    NothingStored(rusqlite::Error),
    /// COMMIT itself failed after it may have reached the disk.
    Unknown(rusqlite::Error),
}

/// The one connection that writes. It is opened again after a failure that may have spoiled it.
pub(super) struct Database {
    path: PathBuf,
    role: Role,
    cached_channels: usize,
    /// [`Memory::settle_at`], which a failure does not change back.
    settle_at: u64,
    syncs: Syncs,
    connection: Option<Connection>,
    memory: Option<Memory>,
}

impl Database {
    pub(super) fn new(
        path: PathBuf,
        connection: Connection,
        max_file_bytes: Option<u64>,
        cached_channels: usize,
        syncs: Syncs,
    ) -> Self {
        Self {
            path,
            role: Role::Write { max_file_bytes },
            cached_channels,
            settle_at: MOST_NEW,
            syncs,
            connection: Some(connection),
            memory: None,
        }
    }

    pub(super) fn memory(&mut self) -> Option<&mut Memory> {
        self.memory.as_mut()
    }

    /// Lets the new places be, until there are twice as many: what they would be moved to is damaged,
    /// or what lies beside it.
    pub(super) fn put_off_settling(&mut self) {
        self.settle_at = self.settle_at.saturating_mul(2);
    }

    /// Runs `work` between BEGIN and COMMIT. After any error the memory is read anew.
    pub(super) fn transaction<T>(
        &mut self,
        work: impl FnOnce(&Connection, &mut Memory) -> rusqlite::Result<T>,
    ) -> Result<T, Failure> {
        self.syncs.check().map_err(Failure::NothingStored)?;
        let ended = self.try_transaction(work);
        if let Err(Failure::NothingStored(error) | Failure::Unknown(error)) = &ended {
            self.syncs.judge(error);
        }
        ended
    }

    fn try_transaction<T>(
        &mut self,
        work: impl FnOnce(&Connection, &mut Memory) -> rusqlite::Result<T>,
    ) -> Result<T, Failure> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(&self.path, self.role).map_err(Failure::NothingStored)?,
        };
        // A failure leaves no memory behind.
        let memory = self.memory.take();
        let load = |connection: &Connection| load(connection, self.cached_channels, self.settle_at);
        let (failure, rolled_back) = match attempt(&connection, memory, load, work) {
            Ok((answer, memory)) => {
                self.connection = Some(connection);
                self.memory = Some(memory);
                return Ok(answer);
            }
            Err(failure) => (failure, roll_back(&connection)),
        };
        match failure {
            Failure::NothingStored(error) => {
                if rolled_back && !spoils_connection(&error) {
                    self.connection = Some(connection);
                }
                Err(Failure::NothingStored(error))
            }
            // The disk was full before the frame that commits could be written: with the rest
            // rolled back, nothing of it counts. Nor does SQLite commit after a damaged page was
            // met.
            Failure::Unknown(error)
                if rolled_back
                    && matches!(
                        error.sqlite_error_code(),
                        Some(ErrorCode::DiskFull | ErrorCode::DatabaseCorrupt)
                    ) =>
            {
                self.connection = Some(connection);
                Err(Failure::NothingStored(error))
            }
            unknown => Err(unknown),
        }
    }

    /// Reads outside of a transaction, in which a damaged page would let nothing be written any more.
    pub(super) fn read<T>(
        &mut self,
        work: impl FnOnce(&Connection, &mut Memory) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(&self.path, self.role)?,
        };
        let connection = self.connection.insert(connection);
        let memory = match &mut self.memory {
            Some(memory) => memory,
            none => none.insert(load(connection, self.cached_channels, self.settle_at)?),
        };
        let read = work(connection, memory);
        if read.as_ref().is_err_and(spoils_connection) {
            self.connection = None;
        }
        read
    }

    /// Reads the logs of channels into the memory. Returns those that cannot be read.
    pub(super) fn recall(
        &mut self,
        channels: impl Iterator<Item = ChannelId>,
    ) -> rusqlite::Result<HashSet<ChannelId>> {
        self.read(|connection, memory| {
            let mut lost = HashSet::new();
            for channel in channels {
                match memory.log(connection, channel) {
                    Ok(_) => {}
                    Err(error) if is_damage(&error) => {
                        lost.insert(channel);
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(lost)
        })
    }

    /// Whether anything can be added to the log: fails if that is damaged itself.
    pub(super) fn try_log(&mut self) -> Result<(), Failure> {
        // Told from what it does: what was added is taken back by an error.
        let mut added = false;
        let tried = self.transaction(|connection, memory| {
            connection.execute(
                "INSERT INTO log (pos, channel_no, seq, at, kept_at, event, bytes_to)
                 VALUES (?1, 0, 0, 0, 0, x'', 0)",
                [memory.last_position + 1],
            )?;
            connection.execute(
                "INSERT INTO new_places (channel_no, seq, pos) VALUES (0, 0, 0)",
                [],
            )?;
            added = true;
            Err::<(), _>(rusqlite::Error::QueryReturnedNoRows)
        });
        if added { Ok(()) } else { tried }
    }

    /// Runs a statement outside of a transaction, such as a vacuum step.
    pub(super) fn direct<T>(
        &mut self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Option<T>> {
        self.syncs.check()?;
        let done = self.connection.as_ref().map(work).transpose();
        done.inspect_err(|error| self.syncs.judge(error))
    }
}

fn load(
    connection: &Connection,
    cached_channels: usize,
    settle_at: u64,
) -> rusqlite::Result<Memory> {
    let memory = Memory::load(connection, cached_channels)?;
    Ok(Memory {
        settle_at,
        ..memory
    })
}

fn attempt<T>(
    connection: &Connection,
    memory: Option<Memory>,
    load: impl FnOnce(&Connection) -> rusqlite::Result<Memory>,
    work: impl FnOnce(&Connection, &mut Memory) -> rusqlite::Result<T>,
) -> Result<(T, Memory), Failure> {
    let before_commit = || -> rusqlite::Result<(T, Memory)> {
        // Before the transaction: nobody else writes, and SQLite lets none go on that has met a
        // damaged page.
        let mut memory = match memory {
            Some(memory) => memory,
            None => load(connection)?,
        };
        execute(connection, "BEGIN IMMEDIATE")?;
        let answer = work(connection, &mut memory)?;
        Ok((answer, memory))
    };
    let done = before_commit().map_err(Failure::NothingStored)?;
    execute(connection, "COMMIT").map_err(Failure::Unknown)?;
    Ok(done)
}

fn execute(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(|_| ())
}

/// Some errors roll back by themselves, others leave it to us; true if no transaction is left.
fn roll_back(connection: &Connection) -> bool {
    connection.is_autocommit() || execute(connection, "ROLLBACK").is_ok()
}

fn spoils_connection(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::ReadOnly
                | ErrorCode::FileLockingProtocolFailed
        )
    )
}

impl Failure {
    /// Whether one of several messages may have caused it, so that it is worth trying them one by
    /// one: not the disk, not a lock, not memory.
    pub(super) fn may_be_one_message(&self) -> bool {
        match self {
            Self::Unknown(_) => false,
            Self::NothingStored(error) => {
                !spoils_connection(error)
                    && !matches!(
                        error.sqlite_error_code(),
                        Some(
                            ErrorCode::DiskFull
                                | ErrorCode::DatabaseBusy
                                | ErrorCode::DatabaseLocked
                                | ErrorCode::OutOfMemory
                        )
                    )
            }
        }
    }

    /// Whether a part of the database that was needed is damaged.
    pub(super) fn is_damage(&self) -> bool {
        matches!(self, Self::NothingStored(error) if is_damage(error))
    }

    pub(super) fn is_disk_full(&self) -> bool {
        let (Self::NothingStored(error) | Self::Unknown(error)) = self;
        error.sqlite_error_code() == Some(ErrorCode::DiskFull)
    }

    pub(super) fn to_error(&self) -> StoreError {
        match self {
            Self::NothingStored(error) if is_damage(error) => StoreError::damaged(error),
            Self::NothingStored(error) => StoreError::unavailable(error),
            Self::Unknown(error) => StoreError::OutcomeUnknown {
                reason: error.to_string(),
            },
        }
    }
}
