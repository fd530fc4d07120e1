//! Connections for reading, so that a page of history never waits for a commit.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout},
};

use super::{
    connection::{Connector, NoSession},
    epochs,
    failure::Failure,
    queries::Questions,
    session::Session,
};
use crate::{StoreError, queue::closed};

/// How long nobody tries to connect after somebody could not.
const REST: Duration = Duration::from_millis(500);

/// A connection with its prepared questions.
pub(super) struct Reader {
    pub(super) session: Session,
    pub(super) questions: Questions,
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send + 'a>>;

/// A few connections, made when they are first needed. Each answers one question at a time, so that
/// a large page does not hold up small ones more than it must.
pub(super) struct Readers {
    connector: Connector,
    /// The last is taken first.
    idle: Mutex<VecDeque<Arc<Reader>>>,
    room: Semaphore,
    /// For questions that may take long: one connection is left for the others, if there are two.
    long_room: Semaphore,
    /// When and why there was no connection.
    failed: Mutex<Option<(Instant, StoreError)>>,
}

impl Readers {
    pub(super) fn new(connector: Connector) -> Self {
        Self {
            idle: Mutex::default(),
            room: Semaphore::new(connector.options.connections),
            long_room: Semaphore::new(connector.options.connections.saturating_sub(1).max(1)),
            failed: Mutex::default(),
            connector,
        }
    }

    /// As [`ask`](Self::ask), for pages of history, of which there may be many, and slow ones: heads
    /// and the outbox never wait behind them.
    pub(super) async fn ask_long<T>(
        &self,
        question: impl for<'a> Fn(&'a Reader) -> Answer<'a, T>,
    ) -> Result<T, StoreError> {
        let _room = self.take(&self.long_room).await?;
        self.ask(question).await
    }

    async fn take<'a>(&self, room: &'a Semaphore) -> Result<SemaphorePermit<'a>, StoreError> {
        let limit = self.connector.options.statement_timeout;
        let permit = timeout(limit, room.acquire()).await;
        let permit = permit
            .map_err(|_elapsed| StoreError::unavailable("all connections for reading are busy"))?;
        permit.map_err(|_closed| closed())
    }

    /// Answers a question; a second time on a new connection if the first one was lost over it.
    pub(super) async fn ask<T>(
        &self,
        question: impl for<'a> Fn(&'a Reader) -> Answer<'a, T>,
    ) -> Result<T, StoreError> {
        let _room = self.take(&self.room).await?;
        let mut again = true;
        loop {
            let mut lent = Lent {
                readers: self,
                reader: self.reader().await?,
                state: State::Asked,
            };
            let answer = question(&lent.reader).await;
            lent.state = State::Idle;
            match answer {
                Ok(answer) => return Ok(answer),
                Err(failure @ Failure::Lost(_)) => {
                    lent.state = State::Lost;
                    // The others were lost with it, most likely.
                    lock(&self.idle).clear();
                    if !std::mem::take(&mut again) {
                        return Err(failure.to_error());
                    }
                }
                Err(failure) => return Err(failure.to_error()),
            }
        }
    }

    async fn reader(&self) -> Result<Arc<Reader>, StoreError> {
        let idle = lock(&self.idle)
            .pop_back()
            .filter(|reader| !reader.session.is_closed());
        if let Some(idle) = idle {
            return Ok(idle);
        }
        if let Some((at, error)) = lock(&self.failed).clone()
            && at.elapsed() < REST
        {
            return Err(error);
        }
        let connected = self.connect().await.map_err(|failed| failed.to_error());
        *lock(&self.failed) = connected
            .as_ref()
            .err()
            .map(|e| (Instant::now(), e.clone()));
        connected
    }

    async fn connect(&self) -> Result<Arc<Reader>, NoSession> {
        let session = self.connector.connect().await?;
        let questions = Questions::prepare(&session).await?;
        Ok(Arc::new(Reader { session, questions }))
    }

    /// The number of logs, whatever time it takes to count them.
    pub(super) async fn count_logs(&self) -> Result<u64, StoreError> {
        let session = self.connector.connect().await;
        let session = session.map_err(|failed| failed.to_error())?;
        let counted = epochs::count_logs(&session).await;
        counted.map_err(|failure| failure.to_error())
    }

    fn put_back(&self, reader: Arc<Reader>, is_at_work: bool) {
        let mut idle = lock(&self.idle);
        // Nobody takes it out of a closed store again, which waits for its end.
        if self.room.is_closed() {
            return;
        }
        // What is still at work for somebody who is gone is the last that is needed again.
        if is_at_work {
            idle.push_front(reader);
        } else {
            idle.push_back(reader);
        }
    }

    /// Later questions are refused.
    pub(super) fn close(&self) {
        self.room.close();
        self.long_room.close();
        lock(&self.idle).clear();
    }
}

/// A connection at a question. It is put back also when whoever asked is gone in the middle: what
/// the server then still answers is passed over, and the next question waits for that.
struct Lent<'a> {
    readers: &'a Readers,
    reader: Arc<Reader>,
    state: State,
}

enum State {
    /// Its answer has not come.
    Asked,
    Idle,
    Lost,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let is_at_work = match self.state {
            State::Asked => true,
            State::Idle => false,
            State::Lost => return,
        };
        self.readers.put_back(self.reader.clone(), is_at_work);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while one of them is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
