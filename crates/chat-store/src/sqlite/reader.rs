//! Threads that read, so that a page of history never waits for a commit.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
};

use rusqlite::Connection;
use tokio::sync::{Semaphore, mpsc};

use super::{
    folder::Folder,
    queries::at_one_moment,
    schema::{Role, connect},
    shared::spawn,
};
use crate::{
    StoreError,
    alarm::Alarm,
    queue::{self, closed},
};

/// Questions that wait or are being answered at most; further callers wait for their turn.
const QUESTIONS: usize = 256;

/// A question with its way back inside; `None` asks a thread to end.
type Question = Option<Box<dyn FnOnce(&mut Source) + Send>>;

/// Some threads with a connection each.
pub(super) struct Readers {
    questions: Sender<Question>,
    room: Arc<Semaphore>,
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
            threads,
        })
    }

    /// Answers a question from one moment of the database.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let room = self.room.clone().acquire_owned().await;
        let room = room.map_err(|_closed| closed())?;
        queue::ask(|reply| {
            let question = move |source: &mut Source| {
                let _room = room;
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
            StoreError::unavailable(error)
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
        let next = questions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .recv();
        match next {
            Ok(Some(question)) => question(&mut source),
            Ok(None) | Err(_) => return,
        }
    }
}
