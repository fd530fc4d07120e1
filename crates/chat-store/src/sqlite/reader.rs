//! Threads that read, so that a page of history never waits for a commit.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::failures::is_damage;
use super::folder::Folder;
use super::queries::at_one_moment;
use super::schema::{Role, connect};
use super::shared::spawn;
use crate::StoreError;
use crate::alarm::Alarm;
use crate::queue::{self, closed};

/// Questions that wait or are being answered at most; further callers wait for their turn.
const QUESTIONS: usize = 256;

/// A question with its way back inside; `None` asks a thread to end.
type Question = Option<Box<dyn FnOnce(&mut Source) + Send>>;

/// Some threads with a connection each.
///
/// Pages of history leave one of them free, if there are several: however many are asked for and
/// however slow they are, the outbox and whoever compares heads find a thread.
pub(super) struct Readers {
    questions: Sender<Question>,
    room: Arc<Semaphore>,
    history: Arc<Semaphore>,
    threads: usize,
}

impl Readers {
    /// Starts the threads. Each holds the folder and `alive` until it has ended.
    pub(super) fn start(
        threads: usize,
        folder: &Arc<Folder>,
        alive: &mpsc::Sender<()>,
        alarm: &Alarm,
    ) -> Result<Self, StoreError> {
        let (questions, received) = channel();
        let received = Arc::new(Mutex::new(received));
        for number in 0..threads {
            let (received, folder, alive) = (received.clone(), folder.clone(), alive.clone());
            spawn(&format!("store-read-{number}"), alarm, move || {
                run(&received, folder.database());
                drop(folder);
                drop(alive);
            })?;
        }
        Ok(Self {
            questions,
            room: Arc::new(Semaphore::new(QUESTIONS)),
            history: Arc::new(Semaphore::new((threads - 1).max(1))),
            threads,
        })
    }

    /// Answers a question about history from one moment of the database, once fewer such questions
    /// are being answered than there are threads.
    pub(super) async fn ask_history<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let turn = self.history.clone().acquire_owned().await;
        let turn = turn.map_err(|_closed| closed())?;
        self.send(question, Some(turn)).await
    }

    /// Answers any other question from one moment of the database.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.send(question, None).await
    }

    async fn send<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        turn: Option<OwnedSemaphorePermit>,
    ) -> Result<T, StoreError> {
        let room = self.room.clone().acquire_owned().await;
        let room = room.map_err(|_closed| closed())?;
        queue::ask(|reply| {
            let question = move |source: &mut Source| {
                // Held to the end, also if whoever asked has gone away.
                let _held = (room, turn);
                // Whoever asked may have gone away in the meantime.
                if !reply.is_closed() {
                    queue::answer(reply, source.answer(question));
                }
            };
            self.questions.send(Some(Box::new(question))).is_ok()
        })
        .await
    }

    /// Ends the threads after what was already asked.
    pub(super) fn stop(&self) {
        self.room.close();
        self.history.close();
        for _ in 0..self.threads {
            // Without a receiver they have ended already.
            drop(self.questions.send(None));
        }
    }
}

/// A thread's connection, opened when it is first needed and again after an error.
struct Source {
    path: PathBuf,
    connection: Option<Connection>,
}

impl Source {
    fn answer<T>(
        &mut self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let answer = self.try_answer(question);
        answer.map_err(|error| {
            self.connection = None;
            if is_damage(&error) {
                StoreError::damaged(error)
            } else {
                StoreError::unavailable(error)
            }
        })
    }

    fn try_answer<T>(
        &mut self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(connect(&self.path, Role::Read)?),
        };
        at_one_moment(connection, question)
    }
}

fn run(questions: &Mutex<Receiver<Question>>, path: PathBuf) {
    let mut source = Source {
        path,
        connection: None,
    };
    loop {
        // The lock is held while waiting: the other threads wait for it instead of a question.
        let next = questions.lock().recv();
        match next {
            Ok(Some(question)) => question(&mut source),
            // Told to end, or the store is gone and nobody can ask any more.
            Ok(None) | Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;
    use crate::sqlite::schema::prepare;

    /// However many pages are slow: here they do not end before the other question is answered.
    #[tokio::test]
    async fn history_leaves_a_thread_for_other_questions() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Arc::new(Folder::open(dir.path()).unwrap());
        drop(prepare(&folder.database(), None).unwrap());
        for threads in [2, 3] {
            let (alive, mut ended) = mpsc::channel(1);
            let alarm = Alarm::default();
            let readers = Readers::start(threads, &folder, &alive, &alarm).unwrap();
            drop(alive);
            let readers = Arc::new(readers);
            let (under_way, mut begun) = mpsc::unbounded_channel();
            let mut pages = tokio::task::JoinSet::new();
            let mut ends = Vec::new();
            for _ in 0..threads + 2 {
                let (end, wait) = sync_channel::<()>(1);
                let (readers, under_way) = (readers.clone(), under_way.clone());
                ends.push(end);
                pages.spawn(async move {
                    let page = readers.ask_history(move |_| {
                        under_way.send(()).unwrap();
                        wait.recv().unwrap();
                        Ok(())
                    });
                    page.await.unwrap();
                });
            }
            for _ in 1..threads {
                begun.recv().await.unwrap();
            }
            let head = readers.ask(|connection| {
                connection.query_row("SELECT count(*) FROM channels", [], |row| row.get(0))
            });
            let count: i64 = head.await.unwrap();
            assert_eq!(count, 0);
            assert!(begun.try_recv().is_err(), "only the others' threads");
            for end in ends {
                end.send(()).unwrap();
            }
            pages.join_all().await;
            readers.stop();
            assert!(ended.recv().await.is_none());
        }
    }
}
