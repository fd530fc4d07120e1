//! A page of a log while it is read, number by number: what is not there is damaged, for a log has
//! no holes.

use bytes::Bytes;
use chat_model::{Damaged, Head, Seq};

use crate::checksum::is_sound;
use crate::{PageLimit, PageRange, StoredPage};

/// An event as the database has it.
pub(crate) struct Kept {
    pub(crate) event: Bytes,
    /// Its checksum, if it was stored with one.
    pub(crate) sum: Option<i32>,
}

/// A page that is being put together.
pub(crate) struct Reading {
    head: Head,
    descending: bool,
    /// The number that comes next, while there is one.
    next: Option<Seq>,
    limit: PageLimit,
    /// Numbers taken so far, damaged ones included.
    taken: usize,
    bytes: usize,
    events: Vec<Bytes>,
    /// In the order in which they were met.
    damaged: Vec<Damaged>,
}

/// The number before or after all others that a range asks for.
pub(crate) fn bound(range: PageRange) -> (Seq, bool) {
    match range {
        PageRange::After(seq) => (seq, false),
        PageRange::Before(seq) => (seq, true),
        PageRange::Newest => (Seq::MAX, true),
    }
}

impl Reading {
    pub(crate) fn new(head: Head, range: PageRange, limit: PageLimit) -> Self {
        let (bound, descending) = bound(range);
        let first = if descending {
            head.head.min(bound.saturating_sub(1))
        } else {
            head.first.max(bound.saturating_add(1))
        };
        Self {
            next: (head.first..=head.head).contains(&first).then_some(first),
            head,
            descending,
            limit: limit.clamped(),
            taken: 0,
            bytes: 0,
            events: Vec::new(),
            damaged: Vec::new(),
        }
    }

    /// The number to read next; `None` when the page is complete.
    pub(crate) fn next(&self) -> Option<Seq> {
        self.next
    }

    /// Takes what was found under a number; those that were passed over are damaged.
    pub(crate) fn take(&mut self, seq: Seq, kept: Kept) {
        while let Some(next) = self.next
            && next != seq
        {
            let is_ahead = if self.descending {
                next > seq
            } else {
                next < seq
            };
            if !is_ahead {
                // Not a number of this range, or one for the second time.
                return;
            }
            self.lacks();
        }
        if self.next.is_none() {
            return;
        }
        if !is_sound(self.head.channel, seq, &kept.event, kept.sum) {
            return self.lacks();
        }
        self.bytes += kept.event.len();
        if self.bytes > self.limit.bytes && !self.events.is_empty() {
            self.next = None;
            return;
        }
        self.events.push(kept.event);
        self.go_on();
    }

    /// The next number cannot be read.
    pub(crate) fn lacks(&mut self) {
        let Some(seq) = self.next else { return };
        let grown = match self.damaged.last_mut() {
            Some(last) if self.descending && last.from == seq + 1 => {
                last.from = seq;
                true
            }
            Some(last) if !self.descending && last.to + 1 == seq => {
                last.to = seq;
                true
            }
            _ => false,
        };
        if !grown {
            self.damaged.push(Damaged { from: seq, to: seq });
        }
        self.go_on();
    }

    fn go_on(&mut self) {
        self.taken += 1;
        let range = self.head.first..=self.head.head;
        self.next = self
            .next
            .and_then(|seq| {
                if self.descending {
                    seq.checked_sub(1)
                } else {
                    seq.checked_add(1)
                }
            })
            .filter(|seq| self.taken < self.limit.events && range.contains(seq));
    }

    /// What has been read.
    pub(crate) fn finish(mut self) -> StoredPage {
        if self.descending {
            self.events.reverse();
            self.damaged.reverse();
        }
        StoredPage {
            head: self.head,
            events: self.events,
            damaged: self.damaged,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::checksum;
    use chat_model::{ChannelId, Epoch};

    fn kept(seq: Seq) -> Kept {
        let event = Bytes::from(format!("event {seq}"));
        let sum = checksum(channel(), seq, &event);
        Kept {
            event,
            sum: Some(sum),
        }
    }

    fn channel() -> ChannelId {
        uuid::Uuid::from_u128(1).into()
    }

    /// A page of the log 3 to 12 of which these numbers were found.
    fn read(range: PageRange, events: usize, found: &[Seq]) -> (Vec<String>, Vec<(Seq, Seq)>) {
        let head = Head {
            channel: channel(),
            epoch: Epoch::ZERO,
            head: 12,
            first: 3,
            epochs: Vec::new(),
        };
        let mut reading = Reading::new(head, range, PageLimit::events(events));
        for &seq in found {
            reading.take(seq, kept(seq));
        }
        while reading.next().is_some() {
            reading.lacks();
        }
        let page = reading.finish();
        let events = page.events.iter().map(|event| {
            let text = String::from_utf8_lossy(event);
            text.trim_start_matches("event ").to_owned()
        });
        let damaged = page.damaged.iter().map(|range| (range.from, range.to));
        (events.collect(), damaged.collect())
    }

    #[test]
    fn what_is_not_found_is_damaged_and_counts() {
        let all: Vec<_> = (3..=12).collect();
        let back: Vec<_> = (3..=12).rev().collect();
        assert_eq!(read(PageRange::After(0), 3, &all).0, ["3", "4", "5"]);
        assert_eq!(read(PageRange::Newest, 3, &back).0, ["10", "11", "12"]);
        assert_eq!(read(PageRange::After(12), 3, &[]), (vec![], vec![]));
        assert_eq!(read(PageRange::Before(3), 3, &[]), (vec![], vec![]));
        let (events, damaged) = read(PageRange::After(4), 6, &[5, 8, 10]);
        assert_eq!(events, ["5", "8", "10"]);
        assert_eq!(damaged, [(6, 7), (9, 9)]);
        let (events, damaged) = read(PageRange::Before(11), 6, &[10, 7, 6]);
        assert_eq!(events, ["6", "7", "10"]);
        assert_eq!(damaged, [(5, 5), (8, 9)]);
        let (events, damaged) = read(PageRange::Newest, 1_000, &[]);
        assert_eq!((events.len(), damaged), (0, vec![(3, 12)]));
    }
}
