//! How posts wait for the writer, and share the memory in which they do.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use chat_model::NewMessage;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::counters::Counters;
use crate::retention::check_option;
use crate::{Append, Appended, OpenError, StoreError};

/// Bytes of messages in one transaction, about: more would make the first wait for the last.
pub(crate) const BATCH_BYTES: usize = 4 << 20;
/// Bytes of the queue that one permit stands for.
const PERMIT_BYTES: usize = 1024;

pub(crate) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// Tells whoever asked, who may be gone.
pub(crate) fn answer<T>(reply: Reply<T>, outcome: Result<T, StoreError>) {
    drop(reply.send(outcome));
}

/// A message that waits, and its share of the queue.
pub(crate) struct Post {
    pub(crate) new: Append,
    pub(crate) reply: Reply<Appended>,
    room: OwnedSemaphorePermit,
}

impl Post {
    /// Its share of the queue.
    pub(crate) fn bytes(&self) -> usize {
        self.room.num_permits() * PERMIT_BYTES
    }
}

/// The room for posts that wait.
pub(crate) struct Queue(Arc<Semaphore>);

/// Whether the bytes of a [`Queue`] and the posts of a batch are within what every store allows.
pub(crate) fn check_options(queue_bytes: usize, batch: usize) -> Result<(), OpenError> {
    check_option(
        queue_bytes >= 1 << 20,
        "queue_bytes",
        "must be at least 1 MiB",
    )?;
    check_option(
        (1..=10_000).contains(&batch),
        "batch",
        "must be 1 to 10,000",
    )
}

impl Queue {
    pub(crate) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes / PERMIT_BYTES)))
    }

    /// Waits for room, and then for what the writer says. `send` hands the post to the writer, or
    /// is false when there is none.
    pub(crate) async fn append(
        &self,
        new: Append,
        counters: &Counters,
        send: impl FnOnce(Box<Post>) -> bool + Send,
    ) -> Result<Appended, StoreError> {
        let permits = permits_for(&new.message);
        let room = self.0.clone().acquire_many_owned(permits).await;
        let room = room.map_err(|_closed| closed())?;
        let (reply, answer) = oneshot::channel();
        counters.queued.fetch_add(1, Relaxed);
        if !send(Box::new(Post { new, reply, room })) {
            counters.queued.fetch_sub(1, Relaxed);
            return Err(closed());
        }
        match answer.await {
            Ok(outcome) => outcome,
            // Not reached by the writer before it closed, or the writer died over it.
            Err(_) if self.0.is_closed() => Err(closed()),
            Err(_) => Err(StoreError::OutcomeUnknown {
                reason: "the store's writer ended unexpectedly".to_owned(),
            }),
        }
    }

    /// Takes no more posts.
    pub(crate) fn close(&self) {
        self.0.close();
    }
}

/// Asks the writer something else; `send` is false when there is none.
pub(crate) async fn ask<T>(send: impl FnOnce(Reply<T>) -> bool + Send) -> Result<T, StoreError> {
    let (reply, answer) = oneshot::channel();
    if !send(reply) {
        return Err(closed());
    }
    answer.await.map_err(|_not_answered| closed())?
}

pub(crate) fn closed() -> StoreError {
    StoreError::unavailable("the store is closed")
}

/// A message's share of the queue: its text and what goes with it.
fn permits_for(message: &NewMessage) -> u32 {
    let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let from = message.from.as_ref();
    let bytes = length(&message.text)
        + length(&message.data)
        + from.map_or(0, |from| length(&from.id) + length(&from.name));
    // The queue has at least 1,024 permits: a larger message takes all of those.
    u32::try_from(bytes / PERMIT_BYTES + 1)
        .unwrap_or(u32::MAX)
        .min(1024)
}
