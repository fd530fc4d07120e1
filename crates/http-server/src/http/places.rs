use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use service_kit::log_limit::LogLimit;
use slab::Slab;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::shares::Shares;
use crate::client_address::Client;

/// How often to look for connections that have become idle, while all places are taken.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long a connection that was told to close may take to write what it has answered.
pub(super) const TO_LEAVE: Duration = Duration::from_secs(1);
/// When places are needed, one in this many is cleared at once: finding the oldest takes longer than
/// clearing them.
const CLEARED: usize = 100;

/// A client's connections that were told to close count until they are closed. Meanwhile the client may
/// exceed its share by one part in this many.
const SLACK: usize = 10;

static FULL: LogLimit = LogLimit::per_minute(2);
static SHARE_TAKEN: LogLimit = LogLimit::per_minute(2);

/// Whether a connection is in use.
pub(super) trait Idleness: Send + Sync {
    /// Since when the connection has been idle; `None` while a request is under way.
    fn idle_since(&self) -> Option<Instant>;
}

/// The places for connections that a server has. When a place is needed, the oldest idle connections
/// are closed; their clients open them again when they need them.
pub(super) struct Places {
    most: usize,
    shares: Shares,
    seats: Mutex<Seats>,
    freed: Notify,
}

#[derive(Default)]
struct Seats {
    /// Connections, including those that were taken over.
    taken: usize,
    /// The same for each client that has a share.
    by_client: HashMap<Client, Share>,
    /// Those that can be told to close.
    removable: Slab<Removable>,
}

/// A client's share of the places.
#[derive(Default)]
struct Share {
    taken: usize,
    /// When a search last found none of them idle.
    looked: Option<Instant>,
}

struct Removable {
    client: Option<Client>,
    accepted: Instant,
    idleness: Option<Arc<dyn Idleness>>,
    /// Ends the connection; already cancelled if it was told to close.
    end: CancellationToken,
}

impl Places {
    pub(super) fn new(most: usize, shares: Shares) -> Arc<Self> {
        Arc::new(Self {
            most,
            shares,
            seats: Mutex::default(),
            freed: Notify::new(),
        })
    }

    /// Waits until there is room for one more. Only one task may wait and take places.
    pub(super) async fn room(&self) {
        let mut cleared_at: Option<Instant> = None;
        while lock(&self.seats).taken >= self.most {
            // Those that were told to close may still be closing.
            if cleared_at.is_some_and(|at| at.elapsed() <= TO_LEAVE) {
                self.wait().await;
                continue;
            }
            let cleared = self.clear();
            cleared_at = (cleared > 0).then(Instant::now);
            if let Some(left_out) = FULL.line() {
                warn!(
                    left_out,
                    cleared,
                    "max_connections reached: idle connections are closed to make room, new ones wait"
                );
            }
            self.wait().await;
        }
    }

    /// A place for a connection from `peer`. `end` is cancelled when another client needs the place. If
    /// the client's share is used up, its own oldest idle connections are closed; `None` if none of them
    /// is idle.
    pub(super) fn take(self: &Arc<Self>, peer: IpAddr, end: CancellationToken) -> Option<Place> {
        let client = self.shares.client(peer);
        let mut seats = lock(&self.seats);
        if let Some(client) = client {
            if !seats.share_has_room(client, self.shares.most) {
                return None;
            }
            seats.by_client.entry(client).or_default().taken += 1;
        }
        seats.taken += 1;
        let removable = seats.removable.insert(Removable {
            client,
            accepted: Instant::now(),
            idleness: None,
            end,
        });
        drop(seats);
        Some(Place {
            places: Arc::clone(self),
            client,
            removable: Some(removable),
        })
    }

    /// Ends the oldest idle connections, at least one if there are any, and returns how many.
    pub(super) fn clear(&self) -> usize {
        lock(&self.seats).clear((self.most / CLEARED).max(1), |_| true)
    }

    /// Waits until all connections have ended.
    pub(super) async fn empty(&self) {
        while lock(&self.seats).taken > 0 {
            self.wait().await;
        }
    }

    async fn wait(&self) {
        // The caller looks again in either case.
        let _late = timeout(LOOK_AGAIN, self.freed.notified()).await;
    }
}

impl Seats {
    /// Whether a client may have one more. If necessary, its idle ones are told to close.
    fn share_has_room(&mut self, client: Client, most: usize) -> bool {
        let now = Instant::now();
        let Some(share) = self.by_client.get_mut(&client) else {
            return true;
        };
        if share.taken < most {
            return true;
        }
        // Connections that were told to close may not have closed yet; this many may exceed the share.
        let has_slack = share.taken < most + (most / SLACK).max(1);
        // Searching takes time: a client that opens many at once must not cause a search for each.
        let has_looked = share.looked.is_some_and(|at| now - at < LOOK_AGAIN);
        if let Some(left_out) = SHARE_TAKEN.line() {
            warn!(left_out, %client, "max_connections_per_address reached: the address's idle connections are closed to make room, further ones are refused; if it is a proxy, name it in limits.trusted_proxies");
        }
        if !has_slack || has_looked {
            return false;
        }
        let cleared = self.clear((most / CLEARED).max(1), |seat| seat.client == Some(client));
        if cleared == 0 {
            self.by_client.entry(client).or_default().looked = Some(now);
        }
        cleared > 0
    }

    /// Ends the oldest idle connections among those for which `meant` is true, and returns how many.
    fn clear(&self, most: usize, meant: impl Fn(&Removable) -> bool) -> usize {
        let removable = self.removable.iter().map(|(_, seat)| seat);
        let mut idle: Vec<(Instant, &CancellationToken)> = removable
            .filter(|seat| !seat.end.is_cancelled() && meant(seat))
            .filter_map(|seat| {
                // Without this, the connection is still in its handshake and has requested nothing.
                let idleness = seat.idleness.as_ref();
                let since = idleness.map_or(Some(seat.accepted), |it| it.idle_since());
                Some((since?, &seat.end))
            })
            .collect();
        let count = most.min(idle.len());
        if count == 0 {
            return 0;
        }
        idle.select_nth_unstable_by_key(count - 1, |(since, _)| *since);
        for (_, end) in &idle[..count] {
            end.cancel();
        }
        count
    }
}

/// Counts as one of the server's connections until it is dropped.
pub struct Place {
    places: Arc<Places>,
    client: Option<Client>,
    /// `None` once the connection may no longer be closed for others.
    removable: Option<usize>,
}

impl Place {
    /// A place that belongs to no server, for tests.
    #[doc(hidden)]
    pub fn alone() -> Self {
        let places = Places::new(1, Shares::default());
        lock(&places.seats).taken += 1;
        Self {
            places,
            client: None,
            removable: None,
        }
    }

    /// Sets what to ask from now on whether the connection is idle.
    pub(super) fn watch(&self, idleness: Arc<dyn Idleness>) {
        let mut seats = lock(&self.places.seats);
        let seat = self.removable.and_then(|key| seats.removable.get_mut(key));
        if let Some(seat) = seat {
            seat.idleness = Some(idleness);
        }
    }

    /// The connection was taken over: it is never idle again.
    pub(super) fn keep(mut self) -> Self {
        if let Some(key) = self.removable.take() {
            lock(&self.places.seats).removable.remove(key);
        }
        self
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut seats = lock(&self.places.seats);
        seats.taken -= 1;
        if let Some(client) = self.client
            && let Entry::Occupied(mut share) = seats.by_client.entry(client)
        {
            share.get_mut().taken -= 1;
            if share.get().taken == 0 {
                share.remove();
            }
        }
        if let Some(key) = self.removable {
            seats.removable.remove(key);
        }
        drop(seats);
        self.places.freed.notify_one();
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").finish_non_exhaustive()
    }
}

fn lock(seats: &Mutex<Seats>) -> MutexGuard<'_, Seats> {
    seats.lock()
}
