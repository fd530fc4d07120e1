use std::sync::Arc;

use chat_model::{ChannelId, Cut, Head, Position, Seq};

use super::entry::Entry;
use super::gap::{Gap, GapReason};
use super::tail::{Ask, Tail};

/// The position of one listener in one channel, and what it gets next.
///
/// Pure, like [`Tail`]: a reader has no queue, only a position. It takes what comes after the position from
/// the tail's ring, or asks for a page of history if the ring does not reach back far enough.
#[derive(Debug)]
pub(crate) struct Reader {
    channel: ChannelId,
    start: Start,
    /// `None` until the start is known, which may depend on the head.
    position: Option<Position>,
    /// The number of the tail's last request when the position was reached. The answer to a later request
    /// can disprove the position.
    mark: Ask,
}

/// Where a listener wants to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// With what is posted from now on.
    Live,
    /// With this many of the newest events.
    Newest(u64),
    /// After this position.
    After(Position),
    /// Its cursor could not be read. It is told so, and begins with this many of the newest events.
    Unreadable(u64),
}

/// What a listener gets from one channel.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// The next event.
    Event(Arc<Entry>),
    /// Events that are not available, and the position at which the log continues.
    Gap(Gap, Position),
}

impl Item {
    /// Its approximate memory use, in bytes.
    pub(crate) fn cost(&self) -> usize {
        match self {
            Self::Event(entry) => entry.cost(),
            Self::Gap(..) => 256,
        }
    }
}

/// What comes next for a reader.
#[derive(Debug)]
pub(crate) enum Step {
    /// These were taken; there may be more.
    Items(Vec<Item>),
    /// The ring does not reach back far enough: a page of history after this number is needed.
    NeedsPage(Position),
    /// The head must be requested from the store.
    NeedsHead,
    /// There is nothing to take until the tail changes.
    Waits,
}

/// A page of history with events that are ready to be sent.
#[derive(Debug)]
pub(crate) struct Page {
    /// The number after which the page was requested.
    pub(crate) after: Seq,
    /// The head of the log when the store read the page.
    pub(crate) head: Head,
    /// Events in ascending order.
    pub(crate) entries: Vec<Arc<Entry>>,
}

impl Page {
    /// Whether the page has anything for a reader at `seq`: an event or a gap.
    pub(crate) fn leads_on_from(&self, seq: Seq) -> bool {
        self.after <= seq
            && (self.head.first > seq + 1
                || self.entries.last().is_some_and(|last| last.seq() > seq))
    }

    /// The approximate memory use, in bytes.
    pub(crate) fn cost(&self) -> usize {
        /// The page itself, so that many empty pages count too.
        const OVERHEAD: usize = 256;
        OVERHEAD + self.entries.iter().map(|entry| entry.cost()).sum::<usize>()
    }
}

impl Reader {
    /// A reader for a new listener. `mark` is the tail's current mark.
    pub(crate) fn new(channel: ChannelId, start: Start, mark: Ask) -> Self {
        let position = match start {
            Start::After(position) => Some(position),
            _ => None,
        };
        Self {
            channel,
            start,
            position,
            mark,
        }
    }

    /// The channel.
    pub(crate) fn channel(&self) -> ChannelId {
        self.channel
    }

    /// How far the listener has been served; `None` until its start is known.
    pub(crate) fn position(&self) -> Option<Position> {
        self.position
    }

    /// Whether the listener has had everything that exists, and will miss nothing posted from now on.
    #[inline]
    pub(crate) fn is_ready(&self, tail: &Tail) -> bool {
        let Some(position) = self.position else {
            return false;
        };
        if tail.known() == Some(position) && position.epoch == tail.newest_epoch() {
            return tail.has_what_was_answered(position);
        }
        tail.is_caught_up()
            && tail.known().is_some_and(|known| known.seq == position.seq)
            && Cut::by_epoch(tail.epochs(), position).is_none()
            && Cut::by_unknown_epoch(tail.epochs(), position).is_none()
    }

    /// Takes what comes next, at most about `room` bytes.
    #[inline]
    pub(crate) fn step(&mut self, tail: &Tail, room: usize) -> Step {
        let Some(known) = tail.known() else {
            return Step::Waits;
        };
        let Some(position) = self.position else {
            return self.place(tail, known).map_or(Step::Waits, Step::Items);
        };
        if tail.is_of_another_log() {
            // The tail does not agree with the store; the store's next answer will notify the listener.
            return Step::Waits;
        }
        let mut unknown = false;
        if position.epoch != tail.newest_epoch() {
            if let Some(cut) = Cut::by_epoch(tail.epochs(), position) {
                return self.cut_off(position, cut, tail.mark());
            }
            unknown = Cut::by_unknown_epoch(tail.epochs(), position).is_some();
        }
        if position.seq > known.seq || unknown {
            if !tail.answered_since(self.mark) {
                return Step::NeedsHead;
            }
            return match tail.proven_cut(position, self.mark) {
                Some(cut) => self.cut_off(position, cut, tail.mark()),
                // This node is behind the node that the listener was connected to before.
                None => Step::Waits,
            };
        }
        if position.seq == known.seq {
            return Step::Waits;
        }
        match tail.after(position.seq) {
            Some(after) => Step::Items(self.take(after, room, tail.mark())),
            None => Step::NeedsPage(position),
        }
    }

    /// Takes what a page of history brings, at most about `room` bytes. Empty if the page does not continue
    /// from here.
    pub(crate) fn take_page(&mut self, page: &Page, room: usize, mark: Ask) -> Vec<Item> {
        let Some(position) = self.position else {
            return Vec::new();
        };
        let epochs = &page.head.epochs;
        if Cut::by_epoch(epochs, position).is_some()
            || Cut::by_unknown_epoch(epochs, position).is_some()
        {
            return Vec::new();
        }
        let start = page
            .entries
            .partition_point(|entry| entry.seq() <= position.seq);
        let oldest = page
            .entries
            .get(start)
            .map_or(page.head.first, |entry| entry.seq());
        let mut items = Vec::new();
        if oldest > position.seq + 1 {
            let mut epochs = page.head.epochs.iter().rev();
            let start = epochs.find(|start| start.from < oldest);
            // If the head lists no epoch that old, the reader keeps its own.
            let epoch = start.map_or(position.epoch, |start| start.epoch);
            let skipped = Position::new(epoch, oldest - 1);
            self.reach(skipped, mark);
            items.push(self.gap(
                skipped,
                Some(position.seq + 1),
                oldest - 1,
                GapReason::Retention,
            ));
        }
        items.extend(self.take(page.entries[start..].iter(), room, mark));
        items
    }

    /// Finds the position of a start that depends on the head.
    fn place(&mut self, tail: &Tail, known: Position) -> Option<Vec<Item>> {
        if !tail.is_caught_up() {
            return None;
        }
        let back = match self.start {
            Start::Live | Start::After(_) => 0,
            Start::Newest(count) | Start::Unreadable(count) => count,
        };
        let seq = known
            .seq
            .saturating_sub(back)
            .max(tail.first() - 1)
            .min(known.seq);
        let placed = Position::new(known.epoch, seq);
        self.reach(placed, tail.mark());
        Some(match self.start {
            Start::Unreadable(_) => vec![self.gap(placed, None, seq, GapReason::Cursor)],
            _ => Vec::new(),
        })
    }

    fn take<'a>(
        &mut self,
        entries: impl Iterator<Item = &'a Arc<Entry>>,
        mut room: usize,
        mark: Ask,
    ) -> Vec<Item> {
        // A listener that keeps up takes one at a time.
        let mut items = Vec::with_capacity(1);
        for entry in entries {
            debug_assert_eq!(
                Some(entry.seq()),
                self.position.map(|position| position.seq + 1)
            );
            if entry.is_damaged() {
                self.tell_damaged(&mut items, entry.position);
            } else {
                items.push(Item::Event(entry.clone()));
            }
            self.reach(entry.position, mark);
            match room.checked_sub(entry.cost()) {
                Some(rest) => room = rest,
                None => break,
            }
        }
        items
    }

    /// Consecutive damaged numbers become one gap.
    fn tell_damaged(&self, items: &mut Vec<Item>, at: Position) {
        match items.last_mut() {
            Some(Item::Gap(gap, last)) if gap.reason == GapReason::Damaged => {
                gap.to = at.seq;
                *last = at;
            }
            _ => items.push(self.gap(at, Some(at.seq), at.seq, GapReason::Damaged)),
        }
    }

    fn cut_off(&mut self, position: Position, cut: Cut, mark: Ask) -> Step {
        self.reach(cut.kept, mark);
        Step::Items(vec![self.gap(
            cut.kept,
            Some(cut.kept.seq + 1),
            position.seq,
            GapReason::Epoch,
        )])
    }

    fn reach(&mut self, position: Position, mark: Ask) {
        self.position = Some(position);
        self.mark = mark;
    }

    /// The announcement of a gap; the log continues after `at`.
    fn gap(&self, at: Position, from: Option<Seq>, to: Seq, reason: GapReason) -> Item {
        Item::Gap(
            Gap {
                channel: self.channel,
                from,
                to,
                reason,
            },
            at,
        )
    }
}

#[cfg(test)]
mod tests;
