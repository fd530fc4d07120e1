//! The way into the log, whatever door a message comes in by: this module knows nothing of HTTP.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chat_model::{ChannelId, Epoch, NewMessage, Seq};
use chat_mqtt::BrokerState;
use chat_store::{Append, Appended, IdempotencyKey, Owner, Store, StoreError};
use service_kit::log_limit::Working;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};
use uuid::Uuid;

/// How long a post waits for its commit. Far longer than any healthy disk takes; what happens to
/// the message afterwards is not known.
const COMMIT_TIME: Duration = Duration::from_secs(20);

/// Stores messages. Clones are the same way in.
#[derive(Clone)]
pub struct Ingest {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn Store>,
    broker: watch::Receiver<BrokerState>,
    max_event_bytes: usize,
    told: Working,
}

/// A message on its way in.
#[derive(Clone, Debug)]
pub struct Post {
    /// The channel; it exists as soon as someone uses it.
    pub channel: ChannelId,
    /// The message, checked.
    pub message: NewMessage,
    /// The sender's key that makes a repetition safe, for a message without an id of its own.
    pub key: Option<IdempotencyKey>,
    /// Whose share of what can be remembered it takes.
    pub owner: Owner,
}

/// What became of a [`Post`]: it is in the log, and every listener will have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Posted {
    /// It is new.
    New {
        /// The event as stored.
        event: Bytes,
        /// Its number in the channel.
        seq: Seq,
        /// Whether the broker connection stood; if not, listeners get it a little later.
        broker_up: bool,
    },
    /// The same id or key came before, with the same message.
    Repeated {
        /// The event as stored then; `None` when it has expired.
        event: Option<Bytes>,
        /// The epoch in which it was stored.
        epoch: Epoch,
        /// Its number in the channel.
        seq: Seq,
        /// Its id.
        id: Uuid,
    },
}

impl Ingest {
    /// A way into `store`. Events may take `max_event_bytes` once encoded.
    pub fn new(
        store: Arc<dyn Store>,
        broker: watch::Receiver<BrokerState>,
        max_event_bytes: usize,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                store,
                broker,
                max_event_bytes,
                told: Working::default(),
            }),
        }
    }

    /// Stores a message. `Ok` means that it is committed; the broker is not waited for. If the
    /// future is dropped, the message may be stored or not.
    ///
    /// # Errors
    /// As [`Store::append`]. Only after [`StoreError::OutcomeUnknown`] may the message be stored.
    pub async fn post(&self, post: Post) -> Result<Posted, StoreError> {
        let shared = &*self.shared;
        let append = shared.store.append(Append {
            channel: post.channel,
            message: post.message,
            key: post.key,
            owner: post.owner,
            max_event_bytes: shared.max_event_bytes,
        });
        let appended = timeout(COMMIT_TIME, append).await.unwrap_or_else(|_late| {
            Err(StoreError::OutcomeUnknown {
                reason: format!("no commit within {} s", COMMIT_TIME.as_secs()),
            })
        });
        shared.note(&appended);
        Ok(match appended? {
            Appended::Stored { event, seq, .. } => Posted::New {
                event,
                seq,
                broker_up: shared.broker.borrow().is_up(),
            },
            Appended::Repeated {
                event,
                epoch,
                seq,
                id,
            } => Posted::Repeated {
                event,
                epoch,
                seq,
                id,
            },
        })
    }
}

impl Shared {
    /// Logs the beginning and the end of an outage, not each of its posts.
    fn note(&self, appended: &Result<Appended, StoreError>) {
        match appended {
            Ok(_) => {
                if self.told.tells(true) {
                    info!("the store takes messages again");
                }
            }
            Err(error @ (StoreError::Unavailable { .. } | StoreError::OutcomeUnknown { .. })) => {
                if self.told.tells(false) {
                    warn!(%error, "the store does not take messages; posts get 503 until it does");
                }
            }
            Err(_the_callers_affair) => {}
        }
    }
}
