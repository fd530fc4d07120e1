//! The store in one SQLite database.

mod append;
mod backup;
#[cfg(test)]
mod bench;
mod channel_index;
mod check;
mod checkpoint;
mod database;
mod epochs;
mod failures;
mod folder;
mod health;
mod keys;
mod mark;
mod memory;
mod opening;
mod options;
mod places;
mod queries;
mod read_only;
mod reader;
mod reserve;
mod retention;
mod schema;
mod shared;
mod sync;
mod values;
mod wal;
mod writer;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use async_trait::async_trait;
use chat_model::{ChannelId, Head};
use clock::SharedClock;
use rusqlite::Connection;
use tokio::sync::{Mutex, mpsc};

pub use self::backup::{backup, backup_progress, restore};
pub use self::check::{Checked, check};
pub use self::epochs::new_epoch;
pub use self::options::SqliteOptions;

use self::checkpoint::{Checkpointer, TOO_LARGE_LOG};
use self::database::Database;
use self::epochs::begin_epoch;
use self::folder::Folder;
use self::health::probe;
use self::opening::Opened;
use self::reader::Readers;
use self::reserve::Reserve;
use self::shared::{Shared, spawn};
use self::sync::Syncs;
use self::values::to_position;
use self::writer::{Job, Tools, Writer};
use crate::alarm::Alarm;
use crate::expiry_clock::{ExpiryClock, SavedExpiry, now};
use crate::queue::{self, Queue, Reply};
use crate::{
    Append, Appended, Log, OpenError, Outbox, PageLimit, PageRange, Position, Store, StoreError,
    StoreStats, StoredPage, Unpublished,
};

/// The smallest page.
const ONE: PageLimit = PageLimit {
    events: 1,
    bytes: 0,
};

/// [`Store`] in a folder of this machine, for one process at a time.
///
/// One thread writes, in transactions of whatever arrived during the last one; a few read; one
/// moves committed pages into the database file. Closed by [`Store::close`]; one that is dropped
/// instead does the same in the background.
pub struct SqliteStore {
    jobs: Sender<Job>,
    queue: Queue,
    readers: Readers,
    shared: Arc<Shared>,
    clock: SharedClock,
    /// Ends when every thread has.
    ended: Mutex<mpsc::Receiver<()>>,
    alarm: Alarm,
}

impl SqliteStore {
    /// Opens or creates the store of a folder. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// [`OpenError::Locked`], [`OpenError::NewerSchema`], [`OpenError::Unusable`] or
    /// [`OpenError::BadOption`], each with a sentence for the operator.
    pub fn open(options: &SqliteOptions) -> Result<Self, OpenError> {
        options.validate()?;
        let folder = Arc::new(Folder::open(&options.dir)?);
        let path = folder.database();
        // Before anything is written, so that there is room for it.
        let reserve = Reserve::new(folder.dir(), options.reserve_bytes);
        let Opened {
            connection,
            complaints,
            missing,
        } = opening::open(&folder, options.max_file_bytes)?;
        let kept =
            Kept::load(&connection).map_err(|error| failures::unusable(&options.dir, &error))?;
        sync_folder(folder.dir());
        let alarm = Alarm::default();
        let syncs = Syncs::new(&alarm);
        let mut database = Database::new(
            path.clone(),
            connection,
            options.max_file_bytes,
            options.cached_channels,
            syncs.clone(),
        );
        if let Some(missing) = missing {
            let now = now(&options.clock);
            let logs = database
                .transaction(|connection, memory| begin_epoch(connection, memory, now))
                .map_err(|failure| failure.to_error())?;
            tracing::error!(
                dir = %options.dir.display(),
                missing,
                logs,
                "the store is not as it was left: all logs have a new epoch, by which listeners \
                 are told what is gone"
            );
        }
        begin_log(&mut database);
        let shared = Arc::new(Shared::new(
            path.clone(),
            kept.published_to,
            kept.newest_position,
            reserve.largest_log().unwrap_or(TOO_LARGE_LOG),
        ));
        for complaint in &complaints {
            shared.counters.damage.note_database(complaint);
        }
        shared.begin_mark();
        let expiry = ExpiryClock::resume(options.clock.clone(), kept.expiry, kept.newest);
        let (alive, ended) = mpsc::channel(1);
        let readers = Readers::start(options.readers, &folder, &alive, &alarm)?;
        let checkpointer = Checkpointer::start(path, shared.clone(), syncs, &alarm)?;
        let (stop_marking, stopped) = channel::<()>();
        let marked = shared.clone();
        let marking = spawn("store-mark", &alarm, move || {
            while stopped.recv_timeout(mark::EVERY) == Err(RecvTimeoutError::Timeout) {
                marked.tick_mark();
            }
        })?;
        let tools = Tools {
            shared: shared.clone(),
            checkpointer,
            reserve,
        };
        let writer = Writer::new(options, database, tools, expiry);
        let reserve_bytes = options.reserve_bytes;
        let (jobs, received) = channel();
        spawn("store-write", &alarm, move || {
            writer.run(&received);
            drop(stop_marking);
            if marking.join().is_err() {
                tracing::error!("the store's mark thread panicked");
            }
            Reserve::leave(folder.dir(), reserve_bytes);
            // The folder first: whoever waits for the end may open it again.
            drop(folder);
            drop(alive);
        })?;
        Ok(Self {
            jobs,
            queue: Queue::new(options.queue_bytes),
            readers,
            shared,
            clock: options.clock.clone(),
            ended: Mutex::new(ended),
            alarm,
        })
    }

    /// Removes everything that has expired now, instead of little by little; returns how many
    /// events. Posts wait in the meantime.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; what was removed until then stays removed.
    pub async fn expire(&self) -> Result<u64, StoreError> {
        self.ask(Job::Expire).await
    }

    async fn ask<T>(&self, job: impl FnOnce(Reply<T>) -> Job + Send) -> Result<T, StoreError> {
        queue::ask(|reply| self.jobs.send(job(reply)).is_ok()).await
    }
}

#[async_trait]
impl Log for SqliteStore {
    async fn append(&self, new: Append) -> Result<Appended, StoreError> {
        let send = |post| self.jobs.send(Job::Append(post)).is_ok();
        self.queue.append(new, &self.shared.counters, send).await
    }

    async fn page(
        &self,
        channel: ChannelId,
        range: PageRange,
        limit: PageLimit,
    ) -> Result<StoredPage, StoreError> {
        let limit = limit.clamped();
        let page = self
            .readers
            .ask_history(move |connection| queries::page(connection, channel, range, limit))
            .await?;
        self.shared.counters.damage.note(channel, &page.damaged);
        Ok(page)
    }

    async fn heads(&self, channels: &[ChannelId]) -> Result<Vec<Head>, StoreError> {
        let (channels, shared) = (channels.to_vec(), self.shared.clone());
        self.readers
            .ask(move |connection| queries::heads(connection, &channels, &shared.counters.damage))
            .await
    }
}

#[async_trait]
impl Outbox for SqliteStore {
    async fn unpublished(
        &self,
        after: Position,
        limit: PageLimit,
    ) -> Result<Vec<Unpublished>, StoreError> {
        let (limit, shared) = (limit.clamped(), self.shared.clone());
        self.readers
            .ask(move |connection| {
                let newest = i64::try_from(shared.counters.newest.load(Relaxed));
                let damage = &shared.counters.damage;
                let newest = newest.unwrap_or(i64::MAX);
                queries::unpublished(connection, after, newest, limit, damage)
            })
            .await
    }

    async fn published_to(&self) -> Result<Position, StoreError> {
        Ok(Position::new(
            to_position(0).lane(),
            self.shared.published_to(),
        ))
    }

    fn mark_published(&self, up_to: Position) {
        let ours = up_to.lane() == to_position(0).lane();
        if ours && self.shared.raise_published(up_to.offset()) {
            // A store that is closed has saved what it will.
            drop(self.jobs.send(Job::Published));
        }
    }

    async fn oldest_unpublished(&self) -> Result<Option<Duration>, StoreError> {
        let oldest = self.unpublished(self.published_to().await?, ONE).await?;
        let age = |event: &Unpublished| now(&self.clock).abs_diff(event.committed_at);
        Ok(oldest.first().map(age).map(Duration::from_millis))
    }

    fn follow(&self, batches: usize) -> mpsc::Receiver<Vec<Unpublished>> {
        self.shared.follower.follow(batches)
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn check(&self) -> Result<(), StoreError> {
        self.ask(Job::Check).await
    }

    fn damage(&self) -> Option<String> {
        self.shared.counters.damage.first()
    }

    fn stats(&self) -> StoreStats {
        self.shared.stats()
    }

    async fn broken(&self) {
        self.alarm.rings().await;
    }

    async fn new_epoch(&self) -> Result<Option<u64>, StoreError> {
        self.ask(Job::NewEpoch).await.map(Some)
    }

    async fn close(&self) {
        self.queue.close();
        // Without a receiver it is closed already.
        drop(self.jobs.send(Job::Close));
        self.readers.stop();
        // Nothing is ever sent: this is the end of the last thread.
        self.ended.lock().await.recv().await;
    }
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// Makes that there is a write-ahead log from now on: once it is gone, somebody has taken it.
fn begin_log(database: &mut Database) {
    let begun = database.transaction(|connection, _| probe(connection, 0));
    // On a full disk it begins with the first message, and is missed a moment later.
    if let Err(failure) = begun {
        tracing::debug!(error = %failure.to_error(), "no write-ahead log yet");
    }
}

/// Makes the entries of new files last; not every system can, and the data itself is synced.
fn sync_folder(dir: &Path) {
    for dir in [Some(dir), dir.parent()].into_iter().flatten() {
        sync_entries(dir);
    }
}

/// Makes the names of one folder last.
fn sync_entries(dir: &Path) {
    if let Err(error) = File::open(dir).and_then(|dir| dir.sync_all()) {
        tracing::debug!(%error, dir = %dir.display(), "folder not synced");
    }
}

/// What the store knew when it was last open.
struct Kept {
    published_to: u64,
    newest_position: u64,
    expiry: SavedExpiry,
    /// Expiry clock's reading at which the newest event or key was kept.
    newest: u64,
}

impl Kept {
    fn load(connection: &Connection) -> rusqlite::Result<Self> {
        connection.query_row(
            "SELECT published_to, expiry_clock, expiry_saved_at, max(
                coalesce((SELECT kept_at FROM log ORDER BY pos DESC LIMIT 1), 0),
                coalesce((SELECT kept_at FROM sender_keys ORDER BY n DESC LIMIT 1), 0)),
                max(published_to, last_position, coalesce((SELECT max(pos) FROM log), 0))
             FROM state",
            [],
            |row| {
                Ok(Self {
                    published_to: row.get(0)?,
                    expiry: SavedExpiry {
                        reading: row.get(1)?,
                        saved_at: row.get(2)?,
                    },
                    newest: row.get(3)?,
                    newest_position: row.get(4)?,
                })
            },
        )
    }
}
