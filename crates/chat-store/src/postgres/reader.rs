//! Connections for reading, so that a page of history never waits for a commit.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::connection::Connector;
use super::failure::Failure;
use super::queries::{QUESTIONS, Question};
use super::session::Session;
use super::shared::Shared;
use super::{epochs, schema};
use crate::StoreError;
use crate::expiry_clock::now;
use crate::queue::closed;

/// How long nobody tries to connect after somebody could not.
const REST: Duration = Duration::from_millis(500);

/// A few connections, made when they are first needed. Each answers one question at a time, so that
/// a large page does not hold up small ones more than it must.
///
/// A list and two semaphores: a crate for pools would bring as many lines of a manager, and gives a
/// connection back while the server is still at work for somebody who is gone.
pub(super) struct Readers(Arc<Inner>);

struct Inner {
    connector: Connector,
    shared: Arc<Shared>,
    /// The last is taken first.
    idle: Mutex<Vec<Session>>,
    room: Arc<Semaphore>,
    /// For questions that may take long: one connection is left for the others, if there are two.
    long_room: Arc<Semaphore>,
    /// When and why there was no connection.
    failed: Mutex<Option<(Instant, StoreError)>>,
    stop: CancellationToken,
}

impl Readers {
    pub(super) fn new(connector: Connector, shared: Arc<Shared>) -> Self {
        let most = connector.options.connections;
        Self(Arc::new(Inner {
            connector,
            shared,
            idle: Mutex::default(),
            room: Arc::new(Semaphore::new(most)),
            long_room: Arc::new(Semaphore::new(most.saturating_sub(1).max(1))),
            failed: Mutex::default(),
            stop: CancellationToken::new(),
        }))
    }

    /// Answers a question. The connection and its room are taken until the server has answered, also
    /// for somebody who is gone meanwhile: others would wait behind that.
    pub(super) async fn ask<Q: Question>(&self, question: Q) -> Result<Q::Answer, StoreError> {
        let inner = self.0.clone();
        let long_room = match Q::MAY_BE_LONG {
            true => Some(inner.take(&inner.long_room).await?),
            false => None,
        };
        let room = inner.take(&inner.room).await?;
        let (mut reply, answer) = oneshot::channel();
        self.0.connector.tasks.spawn(async move {
            tokio::select! {
                answer = inner.answer(&question) => drop(reply.send(answer)),
                // Nobody waits for it any more, and the store is closed.
                () = async { reply.closed().await; inner.stop.cancelled().await } => {}
            }
            drop((room, long_room));
        });
        answer.await.map_err(|_died| closed())?
    }

    /// Gives all logs a new epoch.
    pub(super) async fn begin_epoch(&self) -> Result<(), StoreError> {
        let _room = self.0.take(&self.0.room).await?;
        let session = self.0.session().await?;
        let now = now(&self.0.connector.options.clock);
        epochs::begin_epoch(&session, now).await?;
        self.0.put_back(session);
        Ok(())
    }

    /// The number of logs, whatever time it takes to count them.
    pub(super) async fn count_logs(&self) -> Result<u64, StoreError> {
        let session = schema::connect(&self.0.connector, &[]).await?;
        Ok(epochs::count_logs(session).await?)
    }

    /// Later questions are refused.
    pub(super) fn close(&self) {
        self.0.room.close();
        self.0.long_room.close();
        self.0.stop.cancel();
        lock(&self.0.idle).clear();
    }
}

impl Inner {
    async fn take(&self, room: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, StoreError> {
        let limit = self.connector.options.statement_timeout;
        let permit = timeout(limit, room.clone().acquire_owned()).await;
        let permit = permit
            .map_err(|_elapsed| StoreError::unavailable("all connections for reading are busy"))?;
        permit.map_err(|_closed| closed())
    }

    /// A second time on a new connection if the first one was lost over it.
    async fn answer<Q: Question>(&self, question: &Q) -> Result<Q::Answer, StoreError> {
        let mut again = true;
        loop {
            let session = self.session().await?;
            match question.ask(&session, &self.shared.counters.damage).await {
                Err(failure @ Failure::Lost(_)) => {
                    // The others were lost with it, most likely.
                    lock(&self.idle).clear();
                    if !std::mem::take(&mut again) {
                        return Err(failure.into());
                    }
                }
                answer => {
                    self.put_back(session);
                    return Ok(answer?);
                }
            }
        }
    }

    async fn session(&self) -> Result<Session, StoreError> {
        let idle = lock(&self.idle).pop().filter(|idle| !idle.is_closed());
        if let Some(idle) = idle {
            return Ok(idle);
        }
        if let Some((at, error)) = lock(&self.failed).clone()
            && at.elapsed() < REST
        {
            return Err(error);
        }
        let connected = schema::connect(&self.connector, &QUESTIONS).await;
        let connected = connected.map_err(|failure| StoreError::unavailable(failure.reason()));
        let failed = connected.as_ref().err().cloned();
        *lock(&self.failed) = failed.map(|error| (Instant::now(), error));
        connected
    }

    fn put_back(&self, session: Session) {
        let mut idle = lock(&self.idle);
        // Nobody takes it out of a closed store again, which waits for its end.
        if !self.room.is_closed() {
            idle.push(session);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}
