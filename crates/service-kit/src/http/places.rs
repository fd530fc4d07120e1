use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use slab::Slab;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::log_limit::LogLimit;

/// How soon it is looked again for connections that have become idle when all places are taken.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// When places are needed, a hundredth of them is cleared at once: looking for the oldest takes longer
/// than clearing them.
const CLEARED: usize = 100;

static FULL: LogLimit = LogLimit::per_minute(2);

/// Whether a connection does anything for its client.
pub(super) trait Idleness: Send + Sync {
    /// Since when it has not; `None` while a request is under way.
    fn idle_since(&self) -> Option<Instant>;
}

/// The connections that a server has room for. A place that does nothing is given to who needs one:
/// the oldest idle connections go, which their clients open again when they have something to say.
pub(super) struct Places {
    most: usize,
    seats: Mutex<Seats>,
    freed: Notify,
}

#[derive(Default)]
struct Seats {
    /// Connections, those that were taken over included.
    taken: usize,
    /// Those that can be told to go.
    removable: Slab<Removable>,
}

struct Removable {
    accepted: Instant,
    idleness: Option<Arc<dyn Idleness>>,
    /// Ends the connection; cancelled already if it is on its way out.
    end: CancellationToken,
}

impl Places {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            seats: Mutex::default(),
            freed: Notify::new(),
        })
    }

    /// Waits until there is room for one more. Only one may wait, and take places.
    pub(super) async fn room(&self) {
        while lock(&self.seats).taken >= self.most {
            let cleared = self.clear();
            if let Some(left_out) = FULL.line() {
                warn!(
                    left_out,
                    cleared,
                    "as many connections as max_connections allows: idle ones give way, others wait"
                );
            }
            self.wait().await;
        }
    }

    /// A place for a connection, which `end` ends when somebody else needs it.
    pub(super) fn take(self: &Arc<Self>, end: CancellationToken) -> Place {
        let mut seats = lock(&self.seats);
        seats.taken += 1;
        let removable = seats.removable.insert(Removable {
            accepted: Instant::now(),
            idleness: None,
            end,
        });
        Place {
            places: Arc::clone(self),
            removable: Some(removable),
        }
    }

    /// Ends the oldest idle connections, at least one if there is any, and returns how many.
    pub(super) fn clear(&self) -> usize {
        let seats = lock(&self.seats);
        let removable = seats.removable.iter().map(|(_, seat)| seat);
        let mut idle: Vec<(Instant, &CancellationToken)> = removable
            .filter(|seat| !seat.end.is_cancelled())
            .filter_map(|seat| {
                // Before it can be asked it shakes hands, and has not asked for anything.
                let idleness = seat.idleness.as_ref();
                let since = idleness.map_or(Some(seat.accepted), |it| it.idle_since());
                Some((since?, &seat.end))
            })
            .collect();
        let count = (self.most / CLEARED).max(1).min(idle.len());
        if count == 0 {
            return 0;
        }
        idle.select_nth_unstable_by_key(count - 1, |(since, _)| *since);
        for (_, end) in &idle[..count] {
            end.cancel();
        }
        count
    }

    /// Waits until all connections have ended.
    pub(super) async fn empty(&self) {
        while lock(&self.seats).taken > 0 {
            self.wait().await;
        }
    }

    async fn wait(&self) {
        // Late or not, the caller looks again.
        let _late = timeout(LOOK_AGAIN, self.freed.notified()).await;
    }
}

/// Counts as one of the server's connections until it is dropped.
pub struct Place {
    places: Arc<Places>,
    /// `None` once the connection is not to be ended for others any more.
    removable: Option<usize>,
}

impl Place {
    /// A place of nobody else, for tests of what holds one.
    #[doc(hidden)]
    pub fn alone() -> Self {
        Places::new(1).take(CancellationToken::new())
    }

    /// Whom to ask from now on whether the connection does anything.
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
    // Nothing panics while it is held.
    seats.lock().unwrap_or_else(PoisonError::into_inner)
}
