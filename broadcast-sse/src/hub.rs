//! The hub: holds the channels that somebody listens to on this node.
//!
//! It hands out events, gaps and cursors, and knows nothing of server-sent events. For each channel it
//! has a [`Tail`], the newest part of the log; one maintenance task for all channels keeps the tails
//! complete. For each listener it has a [`Reader`] in each channel, which pulls what comes after its
//! position.

pub(crate) mod bench;
mod channel;
mod channels;
mod entry;
mod gap;
mod heads;
mod history;
mod lag;
mod listener;
mod maintenance;
mod metrics;
mod pages;
mod reader;
mod tail;
mod task_queue;
mod waker;

#[cfg(test)]
mod example_log;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chat_model::ChannelId;
use chat_mqtt::{Delivery, Subscriber};
use parking_lot::{Mutex, MutexGuard};
use rights::{Action, Caller, Refusal, Rights};
use service_kit::lifecycle::Lifecycle;
use tokio::sync::{mpsc, watch};

use channel::{Channel, Patience, Shared};
use channels::Channels;
use heads::Heads;
use pages::Pages;
use tail::{Heard, Tail, TailLimits};

pub(crate) use channels::{Client, TooManyChannels};
pub(crate) use entry::{Encode, Encoded, Entry};
pub(crate) use gap::Gap;
pub(crate) use history::History;
pub(crate) use listener::{Listener, Sent};
pub(crate) use metrics::HubMetrics;
pub(crate) use reader::Start;
pub(crate) use waker::Waker;

use crate::config::HubConfig;

/// All channels of this node.
pub(crate) struct Hub {
    channels: Mutex<Channels>,
    shared: Arc<Shared>,
    subscriber: Subscriber,
    heads: Heads,
    pages: Arc<Pages>,
    /// How events are encoded for listeners.
    encode: Encode,
    limits: TailLimits,
    patience: Patience,
    /// A new number each time a channel is created, so that pages from an earlier time are never taken for
    /// those of a later one.
    lives: AtomicU64,
    /// The most bytes in all rings.
    max_memory: usize,
    /// A counter; every stream sends a ping when it changes.
    pings: watch::Sender<u64>,
    rights: Arc<dyn Rights>,
    metrics: Arc<HubMetrics>,
    lifecycle: Lifecycle,
}

/// Why a listener is not admitted now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    /// The caller may not listen to all of the channels.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is no room for so many channels.
    #[error(transparent)]
    TooMany(#[from] TooManyChannels),
}

impl Hub {
    /// Starts the hub's tasks, which run as long as `lifecycle`.
    pub(crate) fn start(
        config: &HubConfig,
        subscriber: Subscriber,
        deliveries: mpsc::Receiver<Vec<Delivery>>,
        history: History,
        rights: Arc<dyn Rights>,
        metrics: Arc<HubMetrics>,
        lifecycle: &Lifecycle,
    ) -> Arc<Self> {
        let encode = history.encode();
        let pages = Pages::new(
            history.clone(),
            config.history_requests,
            config.page_bytes,
            metrics.clone(),
            lifecycle.clone(),
        );
        let hub = Arc::new(Self {
            channels: Mutex::new(Channels::new(config.known_channels, config.linger)),
            shared: Arc::new(Shared {
                lag: metrics.lag.clone(),
                ..Shared::default()
            }),
            subscriber,
            heads: Heads::start(history, lifecycle),
            pages,
            encode,
            limits: TailLimits {
                ring_events: config.ring_events,
                ring_bytes: config.ring_bytes,
            },
            patience: Patience {
                hole: config.hole_patience,
                subscription: Duration::from_secs(2),
            },
            lives: AtomicU64::new(0),
            max_memory: config.memory,
            rights,
            pings: watch::Sender::new(0),
            metrics,
            lifecycle: lifecycle.clone(),
        });
        lifecycle.spawn("intake", intake(hub.clone(), deliveries));
        let maintenance = maintenance::maintain(hub.clone(), config.history_requests);
        lifecycle.spawn("maintenance", maintenance);
        lifecycle.spawn(
            "watch",
            watch_over(hub.clone(), config.ping, config.head_check),
        );
        hub
    }

    /// Adds a listener in these channels, which must be distinct, if `caller` may read them. The channels
    /// count towards the share of `client`. The waker is notified when there may be something to
    /// [take](Listener::take).
    ///
    /// # Errors
    /// If the caller may not read them, or if the node, or this client's share of it, has no room for
    /// channels that nobody listens to yet.
    pub(crate) async fn listen(
        self: &Arc<Self>,
        caller: &Caller,
        client: Client,
        starts: &[(ChannelId, Start)],
        waker: Arc<dyn Waker>,
    ) -> Result<Listener, ListenError> {
        let channels: Vec<_> = starts.iter().map(|&(channel, _)| channel).collect();
        self.rights.permit(caller, Action::Read, &channels).await?;
        let readers = self
            .lock()
            .join(client, starts, &waker, |id| self.make(id))?;
        Ok(Listener::new(self.clone(), readers, waker))
    }

    /// The last listeners of these channels have left.
    fn left<'a>(&self, channels: impl Iterator<Item = &'a Channel>) {
        let mut channels = channels.peekable();
        if channels.peek().is_none() {
            return;
        }
        let now = Instant::now();
        let mut known = self.lock();
        let before = known.next_end();
        channels.for_each(|channel| known.left(channel, now));
        if known.next_end() != before {
            self.shared.tasks.notify();
        }
    }

    /// Changes whenever streams should send a ping.
    pub(crate) fn pings(&self) -> watch::Receiver<u64> {
        self.pings.subscribe()
    }

    /// Whether chat-service answered the last question.
    pub(crate) fn history_answers(&self) -> bool {
        self.heads.service().borrow().answers
    }

    /// Bytes in all rings.
    fn memory(&self) -> usize {
        self.shared.memory.load(Ordering::Relaxed)
    }

    /// Creates a channel that is not in memory.
    fn make(&self, id: ChannelId) -> Arc<Channel> {
        // Each creation has room for four billion generations.
        let generation = self.lives.fetch_add(1 << 32, Ordering::Relaxed);
        let tail = Tail::new(self.limits, generation);
        let subscription = Some(self.subscriber.watch(id));
        let now = Instant::now();
        let channel = Channel::new(id, tail, self.shared.clone(), subscription, now);
        channel.follow_subscription(now);
        Arc::new(channel)
    }

    fn channel(&self, id: ChannelId) -> Option<Arc<Channel>> {
        self.lock().get(id).cloned()
    }

    fn all_channels(&self) -> Vec<Arc<Channel>> {
        self.lock().all().cloned().collect()
    }

    /// Forgets the channels that have had no listener for long.
    fn end_lingering(&self, now: Instant) {
        self.lock().end_lingering(now);
    }

    /// When a channel next has something to do, if nothing happens earlier.
    fn next_task(&self) -> Option<Instant> {
        let end = self.lock().next_end();
        self.shared.tasks.next().into_iter().chain(end).min()
    }

    /// Takes events of one channel, in the order of their arrival. Returns how many payloads were not
    /// events of it.
    fn hear(&self, id: ChannelId, deliveries: &[Delivery]) -> u64 {
        let Some(channel) = self.channel(id) else {
            // Nobody listens, but with a wildcard subscription the broker sends it anyway.
            return 0;
        };
        let mut foreign = 0;
        let entries = deliveries.iter().filter_map(|delivery| {
            let entry = Entry::new(id, &delivery.payload, self.encode);
            foreign += u64::from(entry.is_err());
            entry.ok()
        });
        channel.hear(entries, |heard| {
            let counter = match heard {
                Heard::Appended => &self.metrics.appended,
                Heard::Dropped => &self.metrics.dropped,
                Heard::Waits => &self.metrics.early,
            };
            counter.inc();
        });
        self.metrics.foreign.inc_by(foreign);
        self.keep_within_memory();
        foreign
    }

    /// Shrinks the rings while they hold more bytes than allowed.
    fn keep_within_memory(&self) {
        while self.memory() > self.max_memory {
            let channels = self.all_channels();
            let before = self.memory();
            for channel in channels {
                channel.shrink();
            }
            if self.memory() >= before {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Channels> {
        self.channels.lock()
    }
}

/// Passes what the broker delivers on to the channels.
async fn intake(hub: Arc<Hub>, mut deliveries: mpsc::Receiver<Vec<Delivery>>) {
    /// How often published nonsense is logged at most.
    const BETWEEN_LINES: Duration = Duration::from_secs(60);
    let soft = hub.lifecycle.soft();
    let mut foreign = 0;
    let mut logged: Option<Instant> = None;
    loop {
        let batch = tokio::select! {
            batch = deliveries.recv() => batch,
            () = soft.cancelled() => return,
        };
        let Some(batch) = batch else { return };
        for run in batch.chunk_by(|a, b| a.channel == b.channel) {
            let ignored = hub.hear(run[0].channel, run);
            foreign += ignored;
            if ignored > 0 && logged.is_none_or(|at| at.elapsed() > BETWEEN_LINES) {
                let channel = run[0].channel;
                tracing::warn!(%channel, foreign, "ignored payloads that are not events of their channel");
                logged = Some(Instant::now());
            }
        }
    }
}

/// Logs that somebody else publishes, once a minute at most.
#[derive(Default)]
struct ForgedLine(Option<Instant>);

impl ForgedLine {
    fn say(&mut self, channel: ChannelId, contradictions: u32) {
        const BETWEEN_LINES: Duration = Duration::from_secs(60);
        if self.0.is_none_or(|at| at.elapsed() > BETWEEN_LINES) {
            tracing::warn!(
                %channel,
                contradictions,
                "two different events with the same number: somebody besides chat-service publishes; check the broker's access rules"
            );
            self.0 = Some(Instant::now());
        }
    }
}

/// Triggers pings, and has heads checked: those of channels that were quiet for long; and all of them
/// while the broker or chat-service's connection to it has trouble, or while heartbeats that the broker
/// has accepted do not arrive.
async fn watch_over(hub: Arc<Hub>, ping: Duration, head_check: Duration) {
    /// How often heads are polled while the broker is away: the delay of messages meanwhile.
    const POLL: Duration = Duration::from_secs(2);
    let soft = hub.lifecycle.soft();
    let mut service = hub.heads.service();
    let mut behind = false;
    let mut forged_line = ForgedLine::default();
    let mut polls = tokio::time::interval(POLL);
    let mut pings = tokio::time::interval(ping);
    loop {
        tokio::select! {
            _ = polls.tick() => {
                let deaf = hub.subscriber.deaf_connections() > 0;
                let everybody = service.borrow().behind || deaf;
                // On a machine that has only just started, all heads count as old.
                let before = Instant::now().checked_sub(head_check).unwrap_or_else(Instant::now);
                let channels = hub.all_channels();
                for channel in &channels {
                    let contradictions = channel.check(everybody, before);
                    if contradictions > 0 {
                        hub.metrics.forged.inc_by(contradictions.into());
                        forged_line.say(channel.id(), contradictions);
                    }
                }
                // Pages that listeners asked for have also made rings longer.
                hub.keep_within_memory();
                hub.metrics.channels.set(channels.len() as i64);
                hub.metrics.memory.set(hub.memory() as i64);
                hub.heads.look();
            }
            Ok(()) = service.changed() => {
                let now = service.borrow_and_update().clone();
                hub.subscriber.expect_heartbeats(&now.heartbeats);
                let was = std::mem::replace(&mut behind, now.behind);
                if behind && !was {
                    // At once; the next poll would be two seconds later.
                    let channels = hub.all_channels();
                    channels.iter().for_each(|channel| channel.want_head());
                }
            }
            _ = pings.tick() => hub.pings.send_modify(|count| *count += 1),
            () = soft.cancelled() => return,
        }
    }
}
