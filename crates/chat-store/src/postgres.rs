//! The store in a PostgreSQL database, for several processes at once.
//!
//! Each process has one task that writes (`writer`), in transactions of whatever arrived during
//! the last one, on a connection of its own; some connections for reading (`reader`); and one for
//! retention (`keeper`). Why nothing is lost, doubled in a sequence, or passed over by the outbox,
//! whatever stops when, stands in `docs/decisions/0008-postgresql-lanes.md`.
//!
//! What takes several statements that depend on nothing else is a function in the database
//! (`migrations`). No statement has a row of its own for a message: a batch is two round trips
//! whatever its size.

mod batch;
mod connection;
mod epochs;
mod failure;
mod keeper;
mod numbers;
mod options;
mod queries;
mod reader;
mod schema;
mod session;
mod shared;
mod statements;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chat_model::{ChannelId, Head};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::connection::Connector;
use self::failure::Failure;
use self::keeper::Keeper;
pub use self::options::PostgresOptions;
use self::queries::{AskHeads, AskOldestUnpublished, AskPage, AskUnpublished};
use self::reader::Readers;
use self::shared::Shared;
use self::writer::Writer;
use crate::alarm::Alarm;
use crate::queue::{self, Post, Queue, Reply, closed};
use crate::{
    Append, Appended, Log, OpenError, Outbox, PageLimit, PageRange, Position, Store, StoreError,
    StoreStats, StoredPage, Unpublished,
};

/// Channels that may wait to be trimmed; others are told of again by later events.
const TOO_LONG: usize = 10_000;

/// Brings the database to today's format, from an empty one on.
///
/// # Errors
/// [`OpenError::UnusableDatabase`] or [`OpenError::BadOption`] with a sentence for the operator;
/// [`StoreError::Unavailable`] in [`OpenError::Store`] when the server cannot be reached.
pub async fn migrate(options: &PostgresOptions) -> Result<(), OpenError> {
    let connector = connector(options).await?;
    schema::prepare(&connector, true).await?;
    Ok(())
}

/// Gives every log a new epoch, which starts after the newest event that is kept; returns the
/// number of logs, `None` if they have it and could not be counted. Services may be running.
///
/// Needed only after the files of a server were put back without PostgreSQL's own recovery. A
/// replica that took over and a dump that was put back are recognised without it.
///
/// # Errors
/// As [`PostgresStore::open`], and [`StoreError::Unavailable`] when the server cannot be reached.
pub async fn new_epoch(options: &PostgresOptions) -> Result<Option<u64>, OpenError> {
    let connector = connector(options).await?;
    let session = schema::connect(&connector, &[]).await?;
    epochs::begin_epoch(&session, crate::expiry_clock::now(&options.clock)).await?;
    let count = epochs::count_logs(session).await;
    Ok(counted(count.map_err(StoreError::from)))
}

/// The number of logs that have a new epoch already: that they cannot be counted changes nothing.
fn counted(count: Result<u64, StoreError>) -> Option<u64> {
    count
        .inspect_err(|error| tracing::warn!(%error, "all logs have a new epoch; not counted"))
        .ok()
}

async fn connector(options: &PostgresOptions) -> Result<Connector, OpenError> {
    let options = options.clone();
    // It reads the file of certificates.
    let made = tokio::task::spawn_blocking(move || Connector::new(&options, TaskTracker::new()));
    made.await.map_err(StoreError::unavailable)?
}

/// [`Store`] in a schema `hark` of a PostgreSQL database, for any number of processes.
///
/// It runs on the tokio runtime that it is opened in. Closed by [`Store::close`]; one that is
/// dropped instead does the same in the background.
pub struct PostgresStore {
    posts: mpsc::UnboundedSender<Box<Post>>,
    checks: mpsc::UnboundedSender<Reply<()>>,
    queue: Queue,
    readers: Readers,
    expire: mpsc::Sender<Reply<u64>>,
    shared: Arc<Shared>,
    /// Ends the tasks, also when the store is dropped.
    stop: tokio_util::sync::DropGuard,
    tasks: TaskTracker,
    alarm: Alarm,
}

impl PostgresStore {
    /// Opens the store. A server that is away or starting is no error: the store waits for it, and
    /// posts fail until it is there.
    ///
    /// # Errors
    /// [`OpenError::UnusableDatabase`] (password, database, rights, certificate, another version's
    /// schema) or [`OpenError::BadOption`], each with a sentence for the operator.
    pub async fn open(options: &PostgresOptions) -> Result<Self, OpenError> {
        let connector = connector(options).await?;
        let (posts, asked) = mpsc::unbounded_channel();
        let (checks, asked_checks) = mpsc::unbounded_channel();
        let (too_long, found_too_long) = mpsc::channel(TOO_LONG);
        let (expire, asked_to_expire) = mpsc::channel(1);
        let shared = Arc::new(Shared::default());
        let tasks = connector.tasks.clone();
        let stop = CancellationToken::new();
        let alarm = Alarm::default();
        let asked = (asked, asked_checks, stop.clone());
        let mut writer = Writer::new(connector.clone(), shared.clone(), asked, too_long);
        let first = match writer.connect().await {
            Ok(session) => Some(session),
            Err(Failure::Unusable(error)) => return Err(error),
            Err(_away) => None,
        };
        let keeper = Keeper::new(
            connector.aside(),
            shared.clone(),
            found_too_long,
            asked_to_expire,
        );
        let (writing, keeping) = (alarm.clone(), alarm.clone());
        tasks.spawn(async move {
            // Dropped with the task, also when it panics.
            let _alarm = writing;
            writer.run(first).await;
        });
        let stopped = stop.clone();
        tasks.spawn(async move {
            let _alarm = keeping;
            keeper.run(stopped).await;
        });
        Ok(Self {
            posts,
            checks,
            queue: Queue::new(options.queue_bytes),
            readers: Readers::new(connector.aside(), shared.clone()),
            expire,
            shared,
            stop: stop.drop_guard(),
            tasks,
            alarm,
        })
    }

    /// Removes everything that has expired now, instead of little by little; returns how many
    /// events. What another process is removing at this moment is left to it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; what was removed until then stays removed.
    pub async fn expire(&self) -> Result<u64, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.expire.send(reply).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

#[async_trait]
impl Log for PostgresStore {
    async fn append(&self, new: Append) -> Result<Appended, StoreError> {
        let send = |post| self.posts.send(post).is_ok();
        self.queue.append(new, &self.shared.counters, send).await
    }

    async fn page(
        &self,
        channel: ChannelId,
        range: PageRange,
        limit: PageLimit,
    ) -> Result<StoredPage, StoreError> {
        self.readers.ask(AskPage(channel, range, limit)).await
    }

    async fn heads(&self, channels: &[ChannelId]) -> Result<Vec<Head>, StoreError> {
        self.readers.ask(AskHeads(channels.to_vec())).await
    }
}

#[async_trait]
impl Outbox for PostgresStore {
    async fn unpublished(
        &self,
        after: Position,
        limit: PageLimit,
    ) -> Result<Vec<Unpublished>, StoreError> {
        self.readers.ask(AskUnpublished(after, limit)).await
    }

    async fn published_to(&self) -> Result<Position, StoreError> {
        self.shared
            .published_to()
            .ok_or_else(|| StoreError::unavailable("the database has not been reached yet"))
    }

    fn mark_published(&self, up_to: Position) {
        self.shared.mark_published(up_to);
    }

    async fn oldest_unpublished(&self) -> Result<Option<Duration>, StoreError> {
        let ours = self.shared.published_to();
        self.readers.ask(AskOldestUnpublished(ours)).await
    }

    fn follow(&self, batches: usize) -> mpsc::Receiver<Vec<Unpublished>> {
        self.shared.follower.follow(batches)
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn check(&self) -> Result<(), StoreError> {
        queue::ask(|reply| self.checks.send(reply).is_ok()).await
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
        self.readers.begin_epoch().await?;
        Ok(counted(self.readers.count_logs().await))
    }

    async fn close(&self) {
        self.queue.close();
        self.stop.token().cancel();
        self.readers.close();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl std::fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresStore")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
