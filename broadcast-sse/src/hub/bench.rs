//! Fixtures for measuring the hub without a broker, a store or sockets: a channel with listeners, for
//! `crates/dev/bench`, and many idle channels, for `examples/idle_channels.rs`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chat_model::{Epoch, EpochStart, Head};
use chat_mqtt::Subscriber;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use uuid::Uuid;

use super::channel::{Channel, Shared};
use super::channels::Channels;
use super::reader::{Item, Reader, Start, Step};
use super::tail::{Tail, TailLimits};
use super::{Encode, Entry, Waker};

/// Bytes that a listener takes at a time.
const ROOM: usize = 32 * 1024;

/// A channel with listeners, each of which takes what there is when it is notified.
pub struct Dispatch {
    channel: Channel,
    readers: Vec<Reader>,
    woken: Arc<Woken>,
    encode: Encode,
}

const LIMITS: TailLimits = TailLimits {
    ring_events: 1_000,
    ring_bytes: 1 << 20,
};

/// Distinct idle channels, each with a listener or lingering without one.
pub struct IdleChannels {
    channels: Channels,
    shared: Arc<Shared>,
    subscriber: Subscriber,
    readers: Vec<(Arc<Channel>, usize, Reader)>,
}

impl IdleChannels {
    /// No channels yet.
    pub fn new(subscriber: Subscriber) -> Self {
        Self {
            channels: Channels::new(usize::MAX, Duration::MAX / 4),
            shared: Arc::default(),
            subscriber,
            readers: Vec::new(),
        }
    }

    /// Adds this many channels, each with a log of one event, and with a listener if `listened`. They
    /// share one stream's waker, because the cost of a stream is not counted here.
    ///
    /// # Panics
    /// Never, because there is no limit here.
    pub fn add(&mut self, count: u32, listened: bool) {
        let now = Instant::now();
        let waker: Arc<dyn Waker> = Arc::new(Notify::new());
        if listened {
            self.readers.reserve_exact(count as usize);
        }
        for n in 1..=u128::from(count) {
            let start = (Uuid::from_u128(n).into(), Start::Live);
            let readers = self.channels.join(None, &[start], &waker, |id| {
                let subscription = Some(self.subscriber.watch(id));
                let (tail, shared) = (Tail::new(LIMITS, 0), self.shared.clone());
                let channel = Channel::new(id, tail, shared, subscription, now);
                channel.follow_subscription(now);
                Arc::new(channel)
            });
            for (channel, waker, mut reader) in readers.expect("there is no limit") {
                let epoch = Epoch::after(Epoch::ZERO, 0);
                let head = Head {
                    channel: channel.id(),
                    epoch,
                    head: 1,
                    first: 1,
                    epochs: vec![EpochStart { epoch, from: 1 }],
                };
                channel.answered(channel.ask(), &head, now);
                channel.step(&mut reader, ROOM);
                if listened {
                    self.readers.push((channel, waker, reader));
                } else if channel.leave(waker) {
                    self.channels.left(&channel, now);
                }
            }
        }
        while !self.shared.tasks.take(1_000, now).is_empty() {}
    }
}

/// The listeners whose wakers have been notified.
#[derive(Default)]
struct Woken(Mutex<Vec<usize>>);

struct Listening {
    woken: Arc<Woken>,
    reader: usize,
}

impl Dispatch {
    /// A channel with this many listeners, which begin live after this head.
    pub(crate) fn new(head: &Head, listeners: usize, encode: Encode) -> Self {
        let now = Instant::now();
        let tail = Tail::new(LIMITS, 0);
        let channel = Channel::new(head.channel, tail, Arc::default(), None, now);
        let woken = Arc::<Woken>::default();
        let readers = (0..listeners).map(|reader| {
            let woken = woken.clone();
            channel
                .join(Arc::new(Listening { woken, reader }), Start::Live)
                .1
        });
        let mut readers: Vec<Reader> = readers.collect();
        channel.answered(channel.ask(), head, now);
        for reader in &mut readers {
            channel.step(reader, ROOM);
        }
        woken.lock().clear();
        Self {
            channel,
            readers,
            woken,
            encode,
        }
    }

    /// Delivers this event as from the broker; every listener takes it. Returns the number of bytes that
    /// would be written.
    ///
    /// # Panics
    /// If the line is not an event of the channel.
    pub fn deliver(&mut self, line: &[u8]) -> usize {
        let entry =
            Entry::new(self.channel.id(), line, self.encode).expect("an event of this channel");
        self.channel.hear(std::iter::once(entry), |_| ());
        let mut woken = self.woken.lock();
        let mut bytes = 0;
        for reader in woken.drain(..) {
            if let (Step::Items(items), _) = self.channel.step(&mut self.readers[reader], ROOM) {
                let chunks = items.iter().map(|item| match item {
                    Item::Event(entry) => entry.encoded().bytes.len(),
                    Item::Gap(..) => 0,
                });
                bytes += chunks.sum::<usize>();
            }
        }
        bytes
    }
}

impl Woken {
    fn lock(&self) -> MutexGuard<'_, Vec<usize>> {
        self.0.lock()
    }
}

impl Waker for Listening {
    fn notify(&self) {
        self.woken.lock().push(self.reader);
    }
}
