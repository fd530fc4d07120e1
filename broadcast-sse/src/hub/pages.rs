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

/// The cache of pages of history. Each page is read once for all listeners that need it.
///
/// Pages begin at multiples of [`PAGE_EVENTS`], so that listeners that are behind by different amounts ask
/// for the same pages. A listener that needs a page that is not here is notified when it arrives.
pub(super) struct Pages {
    history: History,
    lifecycle: Lifecycle,
    metrics: Arc<HubMetrics>,
    /// Limits the requests of listeners under way.
    permits: Semaphore,
    max_bytes: usize,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    slots: HashMap<Key, Slot>,
    /// The pages in the cache, oldest first.
    order: VecDeque<Key>,
    bytes: usize,
}

/// Channel, generation, number. The generation tells pages that were read before a log was cut back from
/// later ones.
type Key = (ChannelId, u64, Seq);

enum Slot {
    UnderWay,
    Here {
        page: Arc<Page>,
        /// Whether a listener has already taken it: the first one pays for the read.
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

    /// A page that continues after `seq`; `None` if it must be read first. When it has been read, the
    /// channel's listeners are notified.
    pub(super) fn get(
        self: &Arc<Self>,
        channel: &Arc<Channel>,
        generation: u64,
        seq: Seq,
    ) -> Option<Arc<Page>> {
        let aligned = seq - seq % PAGE_EVENTS;
        let mut cache = self.lock();
        let mut stale = false;
        // If a page was cut short because of its size, the next one begins where it ended.
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

    /// Marks a page as being read until the result is dropped.
    #[cfg(test)]
    pub(super) fn pretend_to_read(
        self: &Arc<Self>,
        channel: &Arc<Channel>,
        generation: u64,
    ) -> impl Send + use<> {
        let key = (channel.id(), generation, 0);
        self.begin(&mut self.lock(), channel, key)
    }

    /// Reads one page without the cache and without its limit on requests.
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

/// A page that is being read. When its task ends, in whatever way, the page is no longer under way: it is
/// in the cache, or the channel's listeners look again after a moment.
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
            // If all its listeners have left, others must not wait for this page.
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
            // First the pause, so that a listener that looks in between does not ask at once.
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
        // The newest page stays whatever its size: a listener waits for it.
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
