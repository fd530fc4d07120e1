//! What is measured of the hub: a channel and its listeners, by `crates/bench`, and many idle
//! channels, by `examples/idle_channels.rs`; without a broker, a store or sockets.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use chat_model::{ChannelId, Epoch, EpochStart, Head};
use chat_mqtt::Subscriber;
use tokio::sync::Notify;
use uuid::Uuid;

use super::{
    Bell, Entry,
    channel::{Channel, Shared},
    channels::Channels,
    seat::{Item, Seat, Start, Step},
    tail::{Tail, TailLimits},
};
use crate::{
    frame::{self, EventFrame},
    stream::ROOM,
};

/// The chunk that is written to everyone who listens to this channel alone.
///
/// # Panics
/// If the line is no event of the channel.
pub fn frame(channel: ChannelId, line: &[u8]) -> Bytes {
    let entry = Entry::new(channel, line, frame::event).expect("an event of this channel");
    EventFrame(entry.encoded()).chunk()
}

/// A channel with listeners, each of whom takes what there is when its bell rings.
pub struct Dispatch {
    channel: Channel,
    seats: Vec<Seat>,
    rung: Arc<Rung>,
}

const LIMITS: TailLimits = TailLimits {
    ring_events: 1_000,
    ring_bytes: 1 << 20,
};

/// Distinct channels that nothing happens in, each with a listener or lingering without one.
pub struct IdleChannels {
    channels: Channels,
    shared: Arc<Shared>,
    subscriber: Subscriber,
    seats: Vec<(Arc<Channel>, usize, Seat)>,
}

impl IdleChannels {
    /// None yet.
    pub fn new(subscriber: Subscriber) -> Self {
        Self {
            channels: Channels::new(usize::MAX, Duration::MAX / 4),
            shared: Arc::default(),
            subscriber,
            seats: Vec::new(),
        }
    }

    /// So many more, with a log in which there is one event; `listened` with a listener each. They
    /// share one stream's bell: what a stream costs is not counted here.
    ///
    /// # Panics
    /// Never: there is no bound here.
    pub fn add(&mut self, count: u32, listened: bool) {
        let now = Instant::now();
        let bell: Arc<dyn Bell> = Arc::new(Notify::new());
        if listened {
            self.seats.reserve_exact(count as usize);
        }
        for n in 1..=u128::from(count) {
            let start = (Uuid::from_u128(n).into(), Start::Live);
            let seats = self.channels.join(None, &[start], &bell, |id| {
                let subscription = Some(self.subscriber.watch(id));
                let (tail, shared) = (Tail::new(LIMITS, 0), self.shared.clone());
                let channel = Channel::new(id, tail, shared, subscription, now);
                channel.follow_subscription(now);
                Arc::new(channel)
            });
            for (channel, bell, mut seat) in seats.expect("there is no bound") {
                let epoch = Epoch::after(Epoch::ZERO, 0);
                let head = Head {
                    channel: channel.id(),
                    epoch,
                    head: 1,
                    first: 1,
                    epochs: vec![EpochStart { epoch, from: 1 }],
                };
                channel.answered(channel.ask(), &head, now);
                channel.step(&mut seat, ROOM);
                if listened {
                    self.seats.push((channel, bell, seat));
                } else if channel.leave(bell) {
                    self.channels.left(&channel, now);
                }
            }
        }
        while !self.shared.errands.take(1_000, now).is_empty() {}
    }
}

/// The listeners whose bells have been rung.
#[derive(Default)]
struct Rung(Mutex<Vec<usize>>);

struct Listening {
    rung: Arc<Rung>,
    seat: usize,
}

impl Dispatch {
    /// So many listeners, who begin live behind this head.
    pub fn new(head: &Head, listeners: usize) -> Self {
        let now = Instant::now();
        let tail = Tail::new(LIMITS, 0);
        let channel = Channel::new(head.channel, tail, Arc::default(), None, now);
        let rung = Arc::<Rung>::default();
        let seats = (0..listeners).map(|seat| {
            let rung = rung.clone();
            channel
                .join(Arc::new(Listening { rung, seat }), Start::Live)
                .1
        });
        let mut seats: Vec<Seat> = seats.collect();
        channel.answered(channel.ask(), head, now);
        for seat in &mut seats {
            channel.step(seat, ROOM);
        }
        rung.lock().clear();
        Self {
            channel,
            seats,
            rung,
        }
    }

    /// The broker delivers this event, and every listener takes it. Returns the bytes that would
    /// be written.
    ///
    /// # Panics
    /// If the line is no event of the channel.
    pub fn deliver(&mut self, line: &[u8]) -> usize {
        let entry =
            Entry::new(self.channel.id(), line, frame::event).expect("an event of this channel");
        self.channel.hear(std::iter::once(entry), |_| ());
        let mut rung = self.rung.lock();
        let mut bytes = 0;
        for seat in rung.drain(..) {
            if let (Step::Items(items), _) = self.channel.step(&mut self.seats[seat], ROOM) {
                let chunks = items.iter().map(|item| match item {
                    Item::Event(entry) => EventFrame(entry.encoded()).chunk().len(),
                    Item::Gap(..) => 0,
                });
                bytes += chunks.sum::<usize>();
            }
        }
        bytes
    }
}

impl Rung {
    fn lock(&self) -> MutexGuard<'_, Vec<usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bell for Listening {
    fn ring(&self) {
        self.rung.lock().push(self.seat);
    }
}
