use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;

use axum::http::HeaderMap;
use http_server::client_address::Client;
use parking_lot::{Mutex, MutexGuard};

use crate::config::{HubConfig, LimitsConfig};
use crate::metrics::Metrics;

/// The streams that may be open, and each client's share of them.
pub(crate) struct OpenStreams {
    most: usize,
    per_client: usize,
    limits: LimitsConfig,
    metrics: Arc<Metrics>,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    all: usize,
    /// Of those that have a share.
    by_client: HashMap<Client, usize>,
}

/// Why a stream cannot be opened now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// All are taken.
    Node,
    /// This client has its share of them.
    Client(Client),
}

/// Held by a stream as long as it is open.
pub(crate) struct StreamPlace {
    streams: Arc<OpenStreams>,
    client: Option<Client>,
}

impl OpenStreams {
    pub(crate) fn new(hub: &HubConfig, limits: LimitsConfig, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            most: hub.max_streams,
            per_client: hub.streams_per_client(),
            limits,
            metrics,
            open: Mutex::default(),
        })
    }

    /// One more stream, for a request that came from `peer`.
    ///
    /// # Errors
    /// [`Full`], if there is none for this client.
    pub(crate) fn take(
        self: &Arc<Self>,
        peer: IpAddr,
        headers: &HeaderMap,
    ) -> Result<StreamPlace, Full> {
        let proxies = &self.limits.trusted_proxies;
        let address = proxies.client(peer, headers);
        let client = Client::new(address);
        let is_free = client.is_loopback() && !self.limits.limit_loopback;
        // A proxy that names nobody stands for many.
        let has_share = !is_free && !proxies.trusts(address);
        let client = has_share.then_some(client);
        let mut open = self.lock();
        if open.all >= self.most {
            return Err(Full::Node);
        }
        if let Some(client) = client {
            let taken = open.by_client.entry(client).or_default();
            if *taken >= self.per_client {
                return Err(Full::Client(client));
            }
            *taken += 1;
        }
        open.all += 1;
        drop(open);
        self.metrics.streams.inc();
        Ok(StreamPlace {
            streams: Arc::clone(self),
            client,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock()
    }
}

impl StreamPlace {
    /// Whose share the stream takes; `None` if it takes nobody's.
    pub(crate) fn client(&self) -> Option<Client> {
        self.client
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let mut open = self.streams.lock();
        open.all -= 1;
        if let Some(client) = self.client
            && let Entry::Occupied(mut taken) = open.by_client.entry(client)
        {
            *taken.get_mut() -= 1;
            if *taken.get() == 0 {
                taken.remove();
            }
        }
        drop(open);
        self.streams.metrics.streams.dec();
    }
}
