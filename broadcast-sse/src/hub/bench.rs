//! What `crates/bench` measures of the hub: a channel and its listeners, without a broker, a
//! store or sockets.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use chat_model::{ChannelId, Head};

use super::{
    Bell, Entry,
    channel::Channel,
    lag::Lag,
    seat::{Item, Seat, Start, Step},
    tail::{Tail, TailLimits},
};
use crate::stream::ROOM;

/// The chunk that is written to everyone who listens to this channel alone.
///
/// # Panics
/// If the line is no event of the channel.
pub fn frame(channel: ChannelId, line: &[u8]) -> Bytes {
    let entry = Entry::new(channel, line).expect("an event of this channel");
    entry.chunk()
}

/// A channel with listeners, each of whom takes what there is when its bell rings.
pub struct Dispatch {
    channel: Channel,
    seats: Vec<Seat>,
    rung: Arc<Rung>,
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
        let limits = TailLimits {
            ring_events: 1_000,
            ring_bytes: 1 << 20,
        };
        let now = Instant::now();
        let tail = Tail::new(limits, 0);
        let channel = Channel::new(head.channel, tail, Arc::default(), Lag::default(), now);
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
        let entry = Entry::new(self.channel.id(), line).expect("an event of this channel");
        self.channel.hear(std::iter::once(entry), |_| ());
        let mut rung = self.rung.lock();
        let mut bytes = 0;
        for seat in rung.drain(..) {
            if let (Step::Items(items), _) = self.channel.step(&mut self.seats[seat], ROOM) {
                let chunks = items.iter().map(|item| match item {
                    Item::Event(entry) => entry.chunk().len(),
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
