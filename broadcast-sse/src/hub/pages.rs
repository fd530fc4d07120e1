use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use chat_model::{ChannelId, Seq};
use parking_lot::{Mutex, MutexGuard};
use service_kit::lifecycle::Lifecycle;
use tokio::sync::Semaphore;

use super::channel::Channel;
use super::history::History;
use super::metrics::HubMetrics;
use super::reader::Page;

/// Pages of history, read once for everybody who needs them.
///
/// Pages begin at multiples of [`PAGE_EVENTS`], so that listeners who are behind by different
/// amounts ask for the same ones. Whoever needs a page that is not here is woken when it has come.
pub(super) struct Pages {
    history: History,
    lifecycle: Lifecycle,
    metrics: Arc<HubMetrics>,
    /// Requests of listeners under way.
    permits: Semaphore,
    max_bytes: usize,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
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
        metrics: Arc<HubMetrics>,
        lifecycle: Lifecycle,
    ) -> Arc<Self> {
        let permits = Semaphore::new(concurrent);
        let cache = Mutex::default();
        Arc::new(Self {
            history,
            lifecycle,
            metrics,
            permits,
            max_bytes,
            cache,
        })
    }

    /// A page that leads on from `seq`; `None` if it must be read first, which wakes the channel's listeners.
    pub(super) fn get(
        self: &Arc<Self>,
        channel: &Arc<Channel>,
        generation: u64,
        seq: Seq,
    ) -> Option<Arc<Page>> {
        let aligned = seq - seq % PAGE_EVENTS;
        let mut cache = self.lock();
        let mut stale = false;
        // A page that was cut short by its size is followed by one that begins where it ended.
        for after in [aligned, seq] {
            match cache.slots.get_mut(&(channel.id(), generation, after)) {
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
        let under_way = self.begin(&mut cache, channel, key);
        drop(cache);
        self.lifecycle.spawn_transient(under_way.read());
        None
    }

    fn begin(self: &Arc<Self>, cache: &mut Cache, channel: &Arc<Channel>, key: Key) -> UnderWay {
        cache.remove(&key);
        cache.slots.insert(key, Slot::UnderWay);
        UnderWay {
            pages: self.clone(),
            channel: channel.clone(),
            key,
            came: false,
        }
    }

    /// A page that is being read by whoever drops what this gives.
    #[cfg(test)]
    pub(super) fn pretend_to_read(
        self: &Arc<Self>,
        channel: &Arc<Channel>,
        generation: u64,
    ) -> impl Send + use<> {
        let key = (channel.id(), generation, 0);
        self.begin(&mut self.lock(), channel, key)
    }

    /// Reads one page for whoever asks, without the cache and without its bound on requests.
    pub(super) async fn read_now(
        &self,
        channel: ChannelId,
        after: Seq,
        limit: usize,
    ) -> Option<Page> {
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

    fn lock(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock()
    }
}

/// A page that is being read. However its task ends, the page is not under way any more: it is
/// here, or the channel's listeners look again after a moment.
struct UnderWay {
    pages: Arc<Pages>,
    channel: Arc<Channel>,
    key: Key,
    came: bool,
}

impl UnderWay {
    async fn read(mut self) {
        let ask = self.channel.ask();
        let soft = self.pages.lifecycle.soft();
        let (channel, after) = (self.channel.id(), self.key.2);
        let read = async {
            let permit = self.pages.permits.acquire().await;
            let _permit = permit.expect("the semaphore is never closed");
            // Who has left meanwhile needs no page, and those who stay are not to wait for it.
            if self.channel.has_no_listener() {
                return None;
            }
            let limit = PAGE_EVENTS as usize;
            self.pages.read_now(channel, after, limit).await
        };
        let Some(Some(page)) = soft.run_until_cancelled(read).await else {
            return;
        };
        let page = Arc::new(page);
        let max_bytes = self.pages.max_bytes;
        self.pages.lock().put(self.key, page.clone(), max_bytes);
        self.channel.page_came(ask, &page, Instant::now());
        self.came = true;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if !self.came {
            // First the pause: who looks in between is not to ask at once.
            self.channel.pause(Instant::now());
            self.pages.lock().remove(&self.key);
        }
    }
}

impl Cache {
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
