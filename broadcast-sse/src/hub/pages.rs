use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use chat_model::{ChannelId, Seq};
use service_kit::lifecycle::Lifecycle;
use tokio::sync::Semaphore;

use super::history::History;
use super::{channel::Channel, seat::Page};
use crate::metrics::Metrics;

/// Pages of history, read once for everybody who needs them.
///
/// Pages begin at multiples of [`PAGE_EVENTS`], so that listeners who are behind by different
/// amounts ask for the same ones. Who needs a page that is not here rings in again when it came.
pub(super) struct Pages {
    history: History,
    lifecycle: Lifecycle,
    metrics: Arc<Metrics>,
    /// Requests under way, so that a broker that loses much cannot cause a storm.
    permits: Semaphore,
    max_bytes: usize,
    shelf: Mutex<Shelf>,
}

#[derive(Default)]
struct Shelf {
    slots: HashMap<Key, Slot>,
    /// The pages that are here, oldest first.
    order: VecDeque<Key>,
    bytes: usize,
}

/// The generation tells pages that were read before a log was cut back from later ones.
type Key = (ChannelId, u64, Seq);

enum Slot {
    UnderWay,
    Here {
        page: Arc<Page>,
        /// Whether somebody had it already: to the first it costs the read.
        used: bool,
    },
}

const PAGE_EVENTS: Seq = 256;

impl Pages {
    pub(super) fn new(
        history: History,
        concurrent: usize,
        max_bytes: usize,
        metrics: Arc<Metrics>,
        lifecycle: Lifecycle,
    ) -> Arc<Self> {
        let permits = Semaphore::new(concurrent);
        let shelf = Mutex::default();
        Arc::new(Self {
            history,
            lifecycle,
            metrics,
            permits,
            max_bytes,
            shelf,
        })
    }

    /// A page that leads on from `seq`; `None` if it must be read first, which rings the channel.
    pub(super) fn get(
        self: &Arc<Self>,
        channel: &Arc<Channel>,
        generation: u64,
        seq: Seq,
    ) -> Option<Arc<Page>> {
        let aligned = seq - seq % PAGE_EVENTS;
        let mut shelf = self.lock();
        let mut stale = false;
        // A page that was cut short by its size is followed by one that begins where it ended.
        for after in [aligned, seq] {
            match shelf.slots.get_mut(&(channel.id(), generation, after)) {
                Some(Slot::Here { page, used }) if page.leads_on_from(seq) => {
                    if std::mem::replace(used, true) {
                        self.metrics.reads_saved.page.inc();
                    }
                    return Some(page.clone());
                }
                Some(Slot::UnderWay) => return None,
                Some(Slot::Here { .. }) => stale = true,
                None => break,
            }
        }
        let after = if stale { seq } else { aligned };
        let key = (channel.id(), generation, after);
        shelf.remove(&key);
        shelf.slots.insert(key, Slot::UnderWay);
        drop(shelf);
        let (pages, channel) = (self.clone(), channel.clone());
        self.lifecycle
            .spawn_transient(async move { pages.read(&channel, key).await });
        None
    }

    /// Reads one page for whoever asks, without the shelf.
    pub(super) async fn read_now(
        &self,
        channel: ChannelId,
        after: Seq,
        limit: usize,
    ) -> Option<Page> {
        let _permit = self
            .permits
            .acquire()
            .await
            .expect("the semaphore is never closed");
        self.metrics.pages_read.inc();
        match self.history.page(channel, after, limit).await {
            Ok(page) => Some(page),
            Err(error) => {
                self.metrics.history_errors.inc();
                tracing::debug!(%channel, %error, "cannot read history");
                None
            }
        }
    }

    async fn read(&self, channel: &Channel, key: Key) {
        let ask = channel.ask();
        let soft = self.lifecycle.soft();
        let page = tokio::select! {
            page = self.read_now(channel.id(), key.2, PAGE_EVENTS as usize) => page,
            () = soft.cancelled() => None,
        };
        match page {
            Some(page) => {
                let page = Arc::new(page);
                self.lock().put(key, page.clone(), self.max_bytes);
                channel.page_came(ask, &page, Instant::now());
            }
            None => {
                let patience = Duration::from_millis(rand::random_range(300..1_000));
                tokio::select! {
                    () = tokio::time::sleep(patience) => {}
                    () = soft.cancelled() => {}
                }
                self.lock().remove(&key);
                channel.ring();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shelf> {
        // Nothing panics while it is held.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    fn put(&mut self, key: Key, page: Arc<Page>, max_bytes: usize) {
        self.remove(&key);
        self.bytes += page.cost();
        self.slots.insert(key, Slot::Here { page, used: false });
        self.order.push_back(key);
        // The newest stays whatever its size: somebody waits for it.
        while self.bytes > max_bytes && self.order.len() > 1 {
            let oldest = self.order[0];
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some(Slot::Here { page, .. }) = self.slots.remove(key) {
            self.bytes -= page.cost();
            self.order.retain(|other| other != key);
        }
    }
}
