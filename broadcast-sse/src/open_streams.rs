use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;

use axum::http::HeaderMap;
use http_server::client_address::Client;
use parking_lot::{Mutex, MutexGuard};

use crate::config::{HubConfig, LimitsConfig};
use crate::metrics::Metrics;

/// Limits the open streams, in total and for each client.
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
    /// Streams of each client that has a share.
    by_client: HashMap<Client, usize>,
}

/// Why a stream cannot be opened now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// The node has as many as it may.
    Node,
    /// This client has used its share.
    Client(Client),
}

/// A place among the open streams, held by a stream as long as it is open.
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

    /// Takes a place for one more stream, for a request from `peer`.
    ///
    /// # Errors
    /// [`Full`] if there is none for this client.
    pub(crate) fn take(
        self: &Arc<Self>,
        peer: IpAddr,
        headers: &HeaderMap,
    ) -> Result<StreamPlace, Full> {
        let proxies = &self.limits.trusted_proxies;
        // A proxy that names no client counts as one, and stands for many.
        let client = proxies.share_of(proxies.client(peer, headers), self.limits.limit_loopback);
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
    /// The client whose share the stream counts towards; `None` if it counts towards none.
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
