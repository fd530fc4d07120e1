//! Reads channels, whichever door asks. It knows nothing of HTTP.

use std::sync::Arc;

use chat_model::{ChannelId, Head};
use chat_store::{Log, PageLimit, PageRange, StoredPage};
use clock::SharedClock;
use http_server::client_address::Client;
use rights::{Action, Caller, Rights};

use crate::failure::Failure;
use crate::rate_limit::{Exceeded, RateLimiter};

/// Reads channels, after checking that the caller may read and does not read too often.
pub(crate) struct Reads {
    store: Arc<dyn Log>,
    rights: Arc<dyn Rights>,
    rate: RateLimiter,
    clock: SharedClock,
}

/// Permission to read once.
pub(crate) struct ReadTurn {
    reads: Arc<Reads>,
}

impl Reads {
    /// Reads from `store`. Each client may read as often as `rate` says.
    pub(crate) fn new(
        store: Arc<dyn Log>,
        rights: Arc<dyn Rights>,
        rate: RateLimiter,
        clock: SharedClock,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            rights,
            rate,
            clock,
        })
    }

    /// Permission for this client to read once. `None` is a client that reads for many others, as often as
    /// it likes.
    ///
    /// # Errors
    /// [`Exceeded`] if it has read too often.
    pub(crate) fn turn(self: &Arc<Self>, client: Option<Client>) -> Result<ReadTurn, Exceeded> {
        if let Some(client) = client {
            self.rate.take(client, self.clock.monotonic())?;
        }
        Ok(ReadTurn {
            reads: Arc::clone(self),
        })
    }
}

impl ReadTurn {
    /// A page of the channel's log.
    ///
    /// # Errors
    /// If the caller may not read the channel, or as [`Log::page`].
    pub(crate) async fn page(
        &self,
        caller: &Caller,
        channel: ChannelId,
        range: PageRange,
        limit: PageLimit,
    ) -> Result<StoredPage, Failure> {
        self.permit(caller, &[channel]).await?;
        Ok(self.reads.store.page(channel, range, limit).await?)
    }

    /// The heads of the channels' logs.
    ///
    /// # Errors
    /// If the caller may not read one of the channels, or as [`Log::heads`].
    pub(crate) async fn heads(
        &self,
        caller: &Caller,
        channels: &[ChannelId],
    ) -> Result<Vec<Head>, Failure> {
        if channels.is_empty() {
            return Ok(Vec::new());
        }
        self.permit(caller, channels).await?;
        Ok(self.reads.store.heads(channels).await?)
    }

    async fn permit(&self, caller: &Caller, channels: &[ChannelId]) -> Result<(), Failure> {
        let decision = self.reads.rights.permit(caller, Action::Read, channels);
        Ok(decision.await?)
    }
}
