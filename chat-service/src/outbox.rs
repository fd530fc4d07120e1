//! Publishes what the store has committed, in the order of the log, until the broker has
//! acknowledged it.
//!
//! The log is the outbox. Normally, commits come directly from the store's writer. After a start, a lost
//! connection, or a burst that was too much to follow, it reads the log page by page from the watermark
//! on, and then follows again. Some events are then published twice; receivers drop them by their
//! number. The watermark is the position up to which everything has its PUBACK.

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

/// How many batches of commits may wait to be published. Beyond that, following stops and the log is read.
const FOLLOWED_BATCHES: usize = 16;
/// The pause after a lost connection, which prevents a busy loop if a broker accepts connections and drops
/// them at once.
const AFTER_LOSS: Duration = Duration::from_millis(50);
/// The pause after the store could not be read.
const AFTER_STORE_ERROR: Duration = Duration::from_secs(1);
/// The limit of a page of the log: small, so that one page is a small part of what may be in flight.
const PAGE: PageLimit = PageLimit {
    events: 500,
    bytes: 1 << 20,
};
/// A token for an event in flight, different for every position of every lane.
fn token(position: Position) -> Token {
    Token(u64::from(position.lane()) << 48 ^ position.offset())
}

/// The state of the outbox, for the metrics.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) in_flight: AtomicU64,
    pub(crate) in_flight_bytes: AtomicU64,
    /// Whether commits come directly from the writer.
    pub(crate) following: AtomicBool,
    /// When an event was last set aside.
    set_aside: Mutex<Option<Instant>>,
}

impl Gauges {
    /// Whether an event was set aside so recently that listeners may not have found it yet. They learn of it
    /// only from the heads.
    pub(crate) fn lately_set_aside(&self) -> bool {
        /// Longer than two of broadcast-sse's polls.
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

/// Why publishing must begin again at the watermark.
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

    /// Publishes until the soft shutdown.
    pub(crate) async fn run(mut self, soft: CancellationToken) {
        // The driver may be dropped at any await: what is not confirmed is published again.
        soft.run_until_cancelled(self.drive()).await;
    }

    async fn drive(&mut self) {
        let mut broker = self.publisher.state();
        let mut store_is_away = false;
        loop {
            if broker.wait_for(|state| state.is_up()).await.is_err() {
                // The publisher is gone because the process is ending.
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
            // Follow first, so that what is committed while the log is read is not missed.
            let mut commits = self.store.follow(FOLLOWED_BATCHES);
            self.keep_to_lane().await?;
            self.catch_up().await?;
            self.gauges.following.store(true, Relaxed);
            self.follow(&mut commits).await?;
            self.gauges.following.store(false, Relaxed);
            info!("following the commits ended; reading the log");
        }
    }

    /// Changes to this process's current lane. What was in flight in the previous lane is published again by
    /// the process that has that lane now.
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

    /// Publishes what is committed, until there is too much to follow.
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

    /// Handles the confirmation of the oldest event.
    fn settle(&mut self, confirmed: Result<(), NotConfirmed>) -> Result<(), Interrupted> {
        if matches!(confirmed, Err(NotConfirmed::SetAside)) {
            self.gauges.note_set_aside();
        }
        match confirmed {
            // Events set aside are counted by the publisher; listeners find them in history through the heads.
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

    /// Handles all confirmations that have already arrived, oldest first.
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
