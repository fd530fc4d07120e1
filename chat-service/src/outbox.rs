//! Publishes what the store has committed, in the order of the log, until the broker has
//! acknowledged it.
//!
//! The log is the outbox. While all goes well, commits come straight from the store's writer. After
//! a start, a lost connection or a burst that was too much to follow, it reads the log from the
//! watermark on, page by page, and then follows again. What is published twice that way falls out
//! by its number at the listeners. The watermark is the position up to which everything has its
//! PUBACK.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use chat_mqtt::{NotConfirmed, Publisher, Token};
use chat_store::{Outbox, PageLimit, Position, StoreError, Unpublished};
use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

mod backlog;
mod flight;
mod standing;

pub(crate) use backlog::drained;
use backlog::is_behind;
pub(crate) use flight::Bounds;
use flight::Flight;
pub(crate) use standing::Standing;

/// Batches of commits that may wait to be published before following gives up and reading begins.
const FOLLOWED_BATCHES: usize = 16;
/// A pause after a lost connection, so that a broker that takes connections and drops them at once
/// is not met by a busy loop.
const AFTER_LOSS: Duration = Duration::from_millis(50);
/// A pause after the store could not be read.
const AFTER_STORE_ERROR: Duration = Duration::from_secs(1);
/// A page of the log: small, so that one page's events are a small part of what may be in flight.
const PAGE: PageLimit = PageLimit {
    events: 500,
    bytes: 1 << 20,
};
/// A name for the event on its way, different for every position of every lane.
fn token(position: Position) -> Token {
    Token(u64::from(position.lane()) << 48 ^ position.offset())
}

/// How the outbox is doing, for the metrics.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) in_flight: AtomicU64,
    pub(crate) in_flight_bytes: AtomicU64,
    /// Whether commits come straight from the writer.
    pub(crate) following: AtomicBool,
    /// When an event was last given up for publishing.
    set_aside: Mutex<Option<Instant>>,
}

impl Gauges {
    /// Whether an event was given up so lately that listeners may not yet have found it: only the
    /// heads tell them of it.
    pub(crate) fn lately_set_aside(&self) -> bool {
        /// Longer than two of broadcast-sse's looks.
        const LATELY: Duration = Duration::from_secs(5);
        let set_aside = self.set_aside.lock();
        set_aside.is_some_and(|at| at.elapsed() < LATELY)
    }

    fn note_set_aside(&self) {
        // As above.
        let mut set_aside = self.set_aside.lock();
        *set_aside = Some(Instant::now());
    }
}

/// The one task that publishes.
pub(crate) struct OutboxTask {
    store: Arc<dyn Outbox>,
    publisher: Publisher,
    gauges: Arc<Gauges>,
    flight: Flight,
    sent: Position,
}

/// Why publishing has to begin again at the watermark.
enum Interrupted {
    Connection,
    Store(StoreError),
}

impl From<StoreError> for Interrupted {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl OutboxTask {
    pub(crate) fn new(
        store: Arc<dyn Outbox>,
        publisher: Publisher,
        bounds: Bounds,
        gauges: Arc<Gauges>,
    ) -> Self {
        Self {
            store,
            publisher,
            flight: Flight::new(bounds),
            gauges,
            sent: Position::START,
        }
    }

    /// Publishes until `soft`.
    pub(crate) async fn run(mut self, soft: CancellationToken) {
        // Every await of the driver may be dropped: what is not confirmed is published again.
        soft.run_until_cancelled(self.drive()).await;
    }

    async fn drive(&mut self) {
        let mut broker = self.publisher.state();
        let mut store_is_away = false;
        loop {
            if broker.wait_for(|state| state.is_up()).await.is_err() {
                // The publisher is gone: the process is ending.
                return std::future::pending().await;
            }
            let Err(why) = self.publish().await;
            self.flight.clear();
            self.gauges.following.store(false, Relaxed);
            self.show();
            match why {
                Interrupted::Connection => {
                    store_is_away = false;
                    debug!("publishing begins again where the broker's acknowledgements end");
                    sleep(AFTER_LOSS).await;
                }
                Interrupted::Store(error) => {
                    if !store_is_away {
                        store_is_away = true;
                        warn!(%error, "the outbox cannot read the log; trying again");
                    }
                    sleep(AFTER_STORE_ERROR).await;
                }
            }
        }
    }

    async fn publish(&mut self) -> Result<std::convert::Infallible, Interrupted> {
        self.sent = self.store.published_to().await?;
        self.show();
        loop {
            // Follow first: what is committed while the log is read must not fall in between.
            let mut commits = self.store.follow(FOLLOWED_BATCHES);
            self.keep_to_lane().await?;
            self.catch_up().await?;
            self.gauges.following.store(true, Relaxed);
            self.follow(&mut commits).await?;
            self.gauges.following.store(false, Relaxed);
            info!("following the commits ended; reading the log");
        }
    }

    /// Changes to the lane that is this process's now. What was on its way in another is published
    /// again by whoever has that.
    async fn keep_to_lane(&mut self) -> Result<(), Interrupted> {
        let watermark = self.store.published_to().await?;
        if watermark.lane() != self.sent.lane() {
            info!("this process writes to another lane of the store");
            self.flight.clear();
            self.sent = watermark;
        }
        Ok(())
    }

    /// Publishes from the log until its end.
    async fn catch_up(&mut self) -> Result<(), Interrupted> {
        loop {
            let page = self.store.unpublished(self.sent, PAGE).await?;
            if page.is_empty() {
                return Ok(());
            }
            for event in page {
                self.send(event).await?;
            }
        }
    }

    /// Publishes what is committed, until that is too much to follow.
    async fn follow(
        &mut self,
        commits: &mut mpsc::Receiver<Vec<Unpublished>>,
    ) -> Result<(), Interrupted> {
        loop {
            tokio::select! {
                confirmed = self.flight.first(), if !self.flight.is_empty() => {
                    self.settle(confirmed)?;
                    self.settle_ready()?;
                }
                batch = commits.recv() => {
                    let Some(batch) = batch else {
                        return Ok(());
                    };
                    for event in batch {
                        if event.position > self.sent {
                            self.send(event).await?;
                        }
                    }
                }
            }
        }
    }

    async fn send(&mut self, event: Unpublished) -> Result<(), Interrupted> {
        while !self.flight.has_room(event.event.len()) {
            let confirmed = self.flight.first().await;
            self.settle(confirmed)?;
        }
        let (position, bytes) = (event.position, event.event.len());
        let confirmation = self
            .publisher
            .publish(token(position), event.channel, event.event)
            .await;
        self.sent = position;
        self.flight.push(position, bytes, confirmation);
        self.settle_ready()
    }

    /// Takes note of the oldest event's confirmation.
    fn settle(&mut self, confirmed: Result<(), NotConfirmed>) -> Result<(), Interrupted> {
        if matches!(confirmed, Err(NotConfirmed::SetAside)) {
            self.gauges.note_set_aside();
        }
        match confirmed {
            // Set aside: counted by the publisher; listeners find it in history by their heads.
            Ok(()) | Err(NotConfirmed::SetAside) => {
                if let Some(position) = self.flight.pop() {
                    self.store.mark_published(position);
                }
                self.show();
                Ok(())
            }
            Err(NotConfirmed::ConnectionLost) => Err(Interrupted::Connection),
        }
    }

    /// Takes note of all confirmations that are there already, oldest first.
    fn settle_ready(&mut self) -> Result<(), Interrupted> {
        while let Some(confirmed) = self.flight.first().now_or_never() {
            self.settle(confirmed)?;
        }
        self.show();
        Ok(())
    }

    fn show(&self) {
        let gauges = &self.gauges;
        gauges.in_flight.store(self.flight.len() as u64, Relaxed);
        gauges
            .in_flight_bytes
            .store(self.flight.bytes() as u64, Relaxed);
    }
}
