use std::sync::Arc;

use chat_model::{ChannelId, Cursor, Position};

use super::channel::Channel;
use super::entry::Entry;
use super::gap::{Gap, GapReason};
use super::reader::{Item, Reader, Step};
use super::{Hub, Waker};

/// A listener to one or several channels.
///
/// It has no queue: [`take`](Self::take) takes what comes after its positions from the channels' rings or
/// from shared pages of history. A listener that does not call it costs nothing.
pub(crate) struct Listener {
    hub: Arc<Hub>,
    readers: Vec<Place>,
    waker: Arc<dyn Waker>,
    /// What the readers that are placed have found, held back until all are placed.
    unannounced: Vec<Item>,
    ready: bool,
    /// The reader that comes first in the next turn.
    turn: usize,
}

struct Place {
    channel: Arc<Channel>,
    waker: usize,
    reader: Reader,
    /// Whether it got an event.
    served: bool,
    /// Whether the listener was told that the head of the log cannot be read.
    told_of_damage: bool,
}

/// What a listener got, in the order in which it must be sent.
pub(crate) type Batch = Vec<Sent>;

/// One thing to send. Its cursor covers all channels of the listener, and nothing that has not been sent
/// yet.
#[derive(Debug)]
pub(crate) enum Sent {
    /// An event. The cursor is `None` for a listener of one channel, because the frames contain it.
    Event(Arc<Entry>, Option<String>),
    /// A gap. It has no cursor if other gaps must be received together with it.
    Gap(Gap, Option<String>),
    /// Nothing is owed, and nothing posted from now on will be missed. Sent once.
    Ready(Vec<(ChannelId, Position)>, String),
}

impl Listener {
    pub(super) fn new(
        hub: Arc<Hub>,
        readers: Vec<(Arc<Channel>, usize, Reader)>,
        waker: Arc<dyn Waker>,
    ) -> Self {
        let readers = readers
            .into_iter()
            .map(|(channel, waker, reader)| Place {
                channel,
                waker,
                reader,
                served: false,
                told_of_damage: false,
            })
            .collect();
        Self {
            hub,
            readers,
            waker,
            unannounced: Vec::new(),
            ready: false,
            turn: 0,
        }
    }

    /// Takes at most about `room` bytes of what is there, and counts it as sent. If there is more, the
    /// waker is notified at once, and the next turn begins with the channel after the one that used up the
    /// room. So a busy channel leaves room for the others.
    pub(crate) fn take(&mut self, room: usize) -> Batch {
        let batch = self.next_batch(room);
        self.hub.metrics.count(&batch);
        batch
    }

    fn next_batch(&mut self, room: usize) -> Batch {
        let mut batch = Batch::new();
        if !self.place(&mut batch) {
            return batch;
        }
        let (was_ready, mut ready) = (self.ready, true);
        let mut left = room;
        let (later, earlier) = (self.turn..self.readers.len(), 0..self.turn);
        for index in later.chain(earlier) {
            loop {
                let place = &mut self.readers[index];
                let (items, reader_ready) = place.step(&self.hub, left, was_ready);
                if items.is_empty() {
                    // The others must not wait for one whose head cannot be read.
                    ready &= reader_ready || was_ready || self.tell_damage(index, &mut batch);
                    break;
                }
                for item in items {
                    left = left.saturating_sub(item.cost());
                    batch.push(self.sent(index, item));
                }
                if left == 0 {
                    // There may be more, for which there is room once this has been written.
                    self.turn = (index + 1) % self.readers.len();
                    self.waker.notify();
                    return batch;
                }
                if reader_ready {
                    break;
                }
            }
        }
        // If no channel's position is known, there is nothing to promise yet.
        if ready && !self.ready && self.positions().next().is_some() {
            self.ready = true;
            batch.push(Sent::Ready(self.positions().collect(), self.cursor()));
        }
        batch
    }

    /// Finds where every reader begins. Nothing is sent until all are placed: after a reconnect, a channel
    /// that is missing from the cursor would begin live.
    fn place(&mut self, batch: &mut Batch) -> bool {
        let mut placed = true;
        for place in &mut self.readers {
            if place.reader.position().is_none() {
                // One step, which places the reader but takes nothing yet.
                if let (Step::Items(said), _) = place.channel.step(&mut place.reader, 0) {
                    self.unannounced.extend(said);
                }
                placed &= place.reader.position().is_some() || place.channel.is_damaged();
            }
        }
        if !placed {
            return false;
        }
        // Only the last carries an id: a client that reconnects before it gets all of them again.
        let last = self.unannounced.len().saturating_sub(1);
        for (index, item) in std::mem::take(&mut self.unannounced)
            .into_iter()
            .enumerate()
        {
            if let Item::Gap(gap, _) = item {
                batch.push(Sent::Gap(gap, (index == last).then(|| self.cursor())));
            }
        }
        true
    }

    /// Whether the store cannot read the head of this reader's channel. The listener is told once; it gets
    /// nothing from this channel until the head can be read.
    fn tell_damage(&mut self, index: usize, batch: &mut Batch) -> bool {
        let place = &mut self.readers[index];
        let damaged = place.channel.is_damaged();
        if damaged && !std::mem::replace(&mut place.told_of_damage, true) {
            let gap = Gap {
                channel: place.reader.channel(),
                from: None,
                to: place.reader.position().map_or(0, |position| position.seq),
                reason: GapReason::Damaged,
            };
            batch.push(Sent::Gap(gap, None));
        }
        damaged
    }

    fn sent(&self, index: usize, item: Item) -> Sent {
        match item {
            Item::Event(entry) if self.readers.len() == 1 => Sent::Event(entry, None),
            Item::Event(entry) => {
                let cursor = self.cursor_at(index, entry.position);
                Sent::Event(entry, Some(cursor))
            }
            Item::Gap(gap, position) => Sent::Gap(gap, Some(self.cursor_at(index, position))),
        }
    }

    /// The cursor of a stream that has reached `position` in this reader's channel. Readers whose turn came
    /// earlier have sent all that they have taken; the others have taken nothing.
    fn cursor_at(&self, index: usize, position: Position) -> String {
        let channel = self.readers[index].reader.channel();
        Cursor::encode(
            self.positions()
                .map(|(id, other)| (id, if id == channel { position } else { other })),
        )
    }

    fn positions(&self) -> impl Iterator<Item = (ChannelId, Position)> + Clone {
        let at = |place: &Place| Some((place.reader.channel(), place.reader.position()?));
        self.readers.iter().filter_map(at)
    }

    fn cursor(&self) -> String {
        Cursor::encode(self.positions())
    }
}

impl Place {
    /// What comes next, and whether the reader is owed nothing after that. `live` means that the listener
    /// was owed nothing before.
    fn step(&mut self, hub: &Hub, room: usize, live: bool) -> (Vec<Item>, bool) {
        loop {
            match self.channel.step(&mut self.reader, room) {
                // Placed, with nothing to report.
                (Step::Items(items), _) if items.is_empty() => {}
                (Step::Items(items), ready) => {
                    if !self.served && matches!(items[0], Item::Event(_)) {
                        self.served = true;
                        if !live {
                            hub.metrics.reads_saved.ring.inc();
                        }
                    }
                    return (items, ready);
                }
                (Step::NeedsPage(position), _) => {
                    let (mark, generation) = self.channel.mark();
                    let page = hub.pages.get(&self.channel, generation, position.seq);
                    self.served |= page.is_some();
                    // Nothing yet if the page has not arrived.
                    let items = page.map(|page| self.reader.take_page(&page, room, mark));
                    return (items.unwrap_or_default(), false);
                }
                (Step::NeedsHead, _) => return (Vec::new(), false),
                (Step::Waits, ready) => return (Vec::new(), ready),
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let places = self.readers.iter();
        let left = places.filter(|place| place.channel.leave(place.waker));
        self.hub.left(left.map(|place| &*place.channel));
    }
}
