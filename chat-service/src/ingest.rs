//! Stores posted messages, whichever door they come through. It knows nothing of HTTP.

mod metrics;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chat_model::{ChannelId, Epoch, NewMessage, Seq};
use chat_mqtt::BrokerState;
use chat_store::{Append, Appended, IdempotencyKey, Log, Owner, StoreError};
use clock::SharedClock;
use http_server::client_address::Client;
use rights::{Action, Caller, Rights};
use service_kit::log_limit::Working;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};
use uuid::Uuid;

use crate::failure::Failure;
use crate::rate_limit::{Exceeded, RateLimiter};
pub(crate) use metrics::PostMetrics;

/// How long a post waits for its commit. Far longer than any healthy disk takes. After that, it is unknown
/// what happens to the message.
const COMMIT_TIME: Duration = Duration::from_secs(20);

/// Stores messages, after checking that the caller may post and does not post too often.
pub(crate) struct Ingest {
    store: Arc<dyn Log>,
    rights: Arc<dyn Rights>,
    rate: RateLimiter,
    clock: SharedClock,
    metrics: PostMetrics,
    broker: watch::Receiver<BrokerState>,
    max_event_bytes: usize,
    told: Working,
}

/// Permission to post once.
pub(crate) struct PostTurn<'a> {
    ingest: &'a Ingest,
    client: Client,
}

/// A message on its way in.
#[derive(Clone, Debug)]
pub(crate) struct Post {
    /// The channel. It exists as soon as someone uses it.
    pub(crate) channel: ChannelId,
    /// The message, checked.
    pub(crate) message: NewMessage,
    /// The sender's key that makes repeating the post safe, for a message without an id.
    pub(crate) key: Option<IdempotencyKey>,
}

/// The result of a [`Post`]: the message is in the log, and every listener will get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Posted {
    /// The message is new.
    New {
        /// The event as stored.
        event: Bytes,
        /// Its number in the channel.
        seq: Seq,
        /// Whether the broker connection was up; if not, listeners get the message a little later.
        broker_up: bool,
    },
    /// The same message was posted before with the same id or key.
    Repeated {
        /// The event as stored then; `None` if it has expired.
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
    /// Stores into `store`. Each client may post as often as `rate` says. An encoded event may take up to
    /// `max_event_bytes`.
    pub(crate) fn new(
        store: Arc<dyn Log>,
        rights: Arc<dyn Rights>,
        rate: RateLimiter,
        clock: SharedClock,
        metrics: PostMetrics,
        broker: watch::Receiver<BrokerState>,
        max_event_bytes: usize,
    ) -> Self {
        Self {
            store,
            rights,
            rate,
            clock,
            metrics,
            broker,
            max_event_bytes,
            told: Working::default(),
        }
    }

    /// Permission for this client to post once. Ask before its message is read, so that a flood costs
    /// little.
    ///
    /// # Errors
    /// [`Exceeded`] if it has posted too often or too much.
    pub(crate) fn turn(&self, client: Client) -> Result<PostTurn<'_>, Exceeded> {
        self.rate.take(client, self.clock.monotonic())?;
        Ok(PostTurn {
            ingest: self,
            client,
        })
    }

    async fn store(&self, append: Append) -> Result<Posted, StoreError> {
        let append = self.store.append(append);
        let appended = timeout(COMMIT_TIME, append).await.unwrap_or_else(|_late| {
            Err(StoreError::OutcomeUnknown {
                reason: format!("no commit within {} s", COMMIT_TIME.as_secs()),
            })
        });
        self.note(&appended);
        Ok(match appended? {
            Appended::Stored { event, seq, .. } => Posted::New {
                event,
                seq,
                broker_up: self.broker.borrow().is_up(),
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

    /// Logs the beginning and the end of an outage, but not each post.
    fn note(&self, appended: &Result<Appended, StoreError>) {
        match appended {
            Ok(_) => {
                if self.told.tells(true) {
                    info!("the store accepts messages again");
                }
            }
            Err(error @ (StoreError::Unavailable { .. } | StoreError::OutcomeUnknown { .. })) => {
                if self.told.tells(false) {
                    warn!(%error, "the store does not accept messages; posts get 503 until it does");
                }
            }
            Err(_the_callers_affair) => {}
        }
    }
}

impl PostTurn<'_> {
    /// Counts the bytes of the client's post, whether it is a valid message or not.
    pub(crate) fn spend(&self, bytes: usize) {
        let Self { ingest, client } = self;
        ingest.rate.spend(*client, bytes, ingest.clock.monotonic());
    }

    /// Stores a message from this caller, if the caller may post there. `Ok` means that it is committed;
    /// this does not wait for the broker. If the future is dropped, the message may or may not be stored.
    ///
    /// # Errors
    /// If the caller may not post, or as [`Log::append`]. After an error the message is not stored, except
    /// that it may be after [`StoreError::OutcomeUnknown`].
    pub(crate) async fn post(self, caller: &Caller, post: Post) -> Result<Posted, Failure> {
        let Self { ingest, client } = self;
        let channel = [post.channel];
        let permitted = ingest.rights.permit(caller, Action::Post, &channel);
        permitted.await?;
        let mut message = post.message;
        message.from = caller.sender().cloned();
        let begun = Instant::now();
        let append = Append {
            channel: post.channel,
            message,
            key: post.key,
            owner: Owner::new(client.number()),
            max_event_bytes: ingest.max_event_bytes,
        };
        let posted = ingest.store(append).await;
        let seconds = begun.elapsed().as_secs_f64();
        ingest.metrics.count(&posted, seconds);
        Ok(posted?)
    }
}
