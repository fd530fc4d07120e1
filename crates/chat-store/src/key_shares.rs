//! How the room for senders' ids and keys is shared out.
//!
//! A share is not a fixed number, but [what is still free](share) decides, counting what is too young to
//! be forgotten; a channel may have three times as many. One sender alone gets half of the room. Ten
//! that all want everything get a twelfth each and leave a fifth, or a sixteenth of all if they come one
//! after the other; so whoever has few is not refused, however many others have filled their shares.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::expiry_clock::milliseconds;
use crate::{Append, KeyMemory, Owner, Share, StoreError};

/// What a channel may have for each that a sender may have.
const CHANNEL: u64 = 3;
/// Parts into which the time of [`KeyMemory::min_age`] is cut, and one that is under way.
const PARTS: u64 = 6;
const SLOTS: usize = PARTS as usize + 1;
/// Counters of a row, a power of two. Everyone has one in each row and counts as the lower of the
/// two: a stranger's keys count for another only if they meet in both.
const WIDTH: usize = 1 << 14;
const ROWS: usize = 2;

/// Counts the keys of the last [`KeyMemory::min_age`] by their senders and channels, those that came
/// by this process since it started, in at most 0.9 MiB whatever the number of senders. A little of
/// the time before counts as well.
///
/// After a restart everyone begins anew in what is then still free.
pub(crate) struct KeyShares {
    max_count: u64,
    /// Milliseconds.
    part: u64,
    hasher: RandomState,
    slots: [Slot; SLOTS],
}

/// What a sender may have when so many are free, of `max`: twice the square of the free part. As many as
/// are free would be half for one alone as well; but each that takes all it may would halve what is
/// free, and n of them leave a 2^n-th. By the square they leave more than 1 part of 2n.
fn share(free: u64, max: u64) -> u64 {
    let square = u128::from(free) * u128::from(free);
    let share = square.saturating_mul(2).div_ceil(u128::from(max.max(1)));
    u64::try_from(share).unwrap_or(u64::MAX)
}

/// What came within one part of the time.
#[derive(Default)]
struct Slot {
    /// Which part; 0 before the first.
    part: u64,
    /// `ROWS` times `WIDTH`; empty until something is counted.
    counts: Vec<u32>,
}

/// The two counters of somebody, in each slot.
type Place = [usize; ROWS];

impl KeyShares {
    pub(crate) fn new(rules: &KeyMemory) -> Self {
        Self {
            max_count: rules.max_count,
            part: milliseconds(rules.min_age).div_ceil(PARTS).max(1),
            hasher: RandomState::new(),
            slots: Default::default(),
        }
    }

    /// Whether so many keys leave more than anyone could use up alone, so that nobody's share need
    /// be looked at.
    pub(crate) fn is_roomy(&self, remembered: u64) -> bool {
        remembered < self.max_count / 2
    }

    /// Whether the sender and the channel may have one more key; `young` are remembered that must
    /// not be forgotten yet.
    pub(crate) fn check(&self, new: &Append, young: u64, expiry: u64) -> Result<(), StoreError> {
        let free = self.max_count.saturating_sub(young);
        if free == 0 {
            // Those that look at the ages say when there is room.
            return Ok(());
        }
        let full = |share, place: Place, room: u64| {
            if self.count(place, expiry) < room {
                return Ok(());
            }
            Err(StoreError::KeysFull {
                share,
                retry_after: self.wait(place, expiry),
            })
        };
        let room = share(free, self.max_count);
        full(Share::Sender, self.sender(new.owner), room)?;
        let room = room.saturating_mul(CHANNEL);
        full(Share::Channel, self.channel(new), room)
    }

    /// Counts a key that is remembered.
    pub(crate) fn add(&mut self, new: &Append, expiry: u64) {
        let places = [self.sender(new.owner), self.channel(new)];
        let part = self.part_of(expiry);
        let slot = &mut self.slots[index(part)];
        if slot.part != part {
            slot.part = part;
            slot.counts.clear();
            slot.counts.resize(ROWS * WIDTH, 0);
        }
        for at in places.into_iter().flatten() {
            slot.counts[at] = slot.counts[at].saturating_add(1);
        }
    }

    fn count(&self, place: Place, expiry: u64) -> u64 {
        let slots = || self.current(expiry);
        let row = |at: usize| slots().map(|slot| u64::from(slot.counts[at])).sum::<u64>();
        place.into_iter().map(row).min().unwrap_or(0)
    }

    /// Until the oldest that counts for somebody no longer does.
    fn wait(&self, place: Place, expiry: u64) -> Duration {
        let counts = |slot: &&Slot| place.into_iter().all(|at| slot.counts[at] > 0);
        let oldest = self.current(expiry).filter(counts).map(|slot| slot.part);
        let gone = oldest.min().map_or(0, |part| (part + PARTS) * self.part);
        Duration::from_millis(gone.saturating_sub(expiry)).max(Duration::from_secs(1))
    }

    /// The slots that are not too old.
    fn current(&self, expiry: u64) -> impl Iterator<Item = &Slot> {
        let now = self.part_of(expiry);
        self.slots
            .iter()
            .filter(move |slot| slot.part + PARTS >= now && !slot.counts.is_empty())
    }

    /// Counted from 1.
    fn part_of(&self, expiry: u64) -> u64 {
        expiry / self.part + 1
    }

    fn sender(&self, owner: Owner) -> Place {
        place(self.hasher.hash_one(owner))
    }

    fn channel(&self, new: &Append) -> Place {
        place(self.hasher.hash_one(new.channel))
    }
}

fn place(hash: u64) -> Place {
    let low = usize::try_from(hash & (WIDTH as u64 - 1)).unwrap_or(0);
    let high = usize::try_from(hash >> 32 & (WIDTH as u64 - 1)).unwrap_or(0);
    [low, WIDTH + high]
}

fn index(part: u64) -> usize {
    usize::try_from(part % SLOTS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use chat_model::NewMessage;
    use uuid::Uuid;

    use super::*;

    const HOUR: u64 = 3_600_000;

    fn shares(max_count: u64) -> KeyShares {
        KeyShares::new(&KeyMemory {
            max_count,
            ..KeyMemory::default()
        })
    }

    fn by(owner: u64, channel: u128) -> Append {
        Append {
            channel: Uuid::from_u128(channel).into(),
            message: NewMessage::text("x"),
            key: None,
            owner: Owner::new(owner),
            max_event_bytes: 1024,
        }
    }

    /// Posts until it is refused; how many, and whose share was full.
    fn fill(
        shares: &mut KeyShares,
        young: &mut u64,
        mut new: impl FnMut(u64) -> Append,
    ) -> (u64, Share) {
        for number in 0.. {
            let new = new(number);
            match shares.check(&new, *young, HOUR) {
                Ok(()) if *young < shares.max_count => shares.add(&new, HOUR),
                Ok(()) => return (number, Share::All),
                Err(StoreError::KeysFull { share, .. }) => return (number, share),
                Err(other) => panic!("{other}"),
            }
            *young += 1;
        }
        unreachable!("the room is bounded")
    }

    /// Strangers whose counters are the same make a share look a little fuller.
    fn assert_near(found: (u64, Share), expected: (u64, Share)) {
        let near = expected.0 - expected.0 / 100..=expected.0;
        assert!(near.contains(&found.0), "{found:?}");
        assert_eq!(found.1, expected.1);
    }

    #[test]
    fn one_takes_half_and_leaves_room_for_everybody_else() {
        let mut shares = shares(100_000);
        let mut young = 0;
        let greedy = fill(&mut shares, &mut young, |n| by(1, n.into()));
        assert_near(greedy, (50_000, Share::Sender));
        let second = fill(&mut shares, &mut young, |n| by(2, n.into()));
        assert_near(second, (19_099, Share::Sender));
        for person in 3..1_000 {
            shares.check(&by(person, 7), young, HOUR).unwrap();
            shares.add(&by(person, 7), HOUR);
            young += 1;
        }
    }

    #[test]
    fn twenty_greedy_ones_in_turn_leave_room() {
        let mut shares = shares(100_000);
        let mut young = 0;
        for greedy in 1..=20 {
            fill(&mut shares, &mut young, |n| by(greedy, n.into()));
        }
        let free = 100_000 - young;
        assert!(free > 100_000 / (2 * 20), "{free}");
        let late = fill(&mut shares, &mut young, |n| by(21, n.into()));
        assert!(late.0 > 100, "{late:?}");
    }

    #[test]
    fn a_crowd_in_one_channel_leaves_room_for_the_others() {
        let mut shares = shares(100_000);
        let mut young = 0;
        let crowd = fill(&mut shares, &mut young, |n| by(n % 1_000, 1));
        assert_near(crowd, (66_667, Share::Channel));
        shares.check(&by(1, 2), young, HOUR).unwrap();
        shares.check(&by(5_000, 2), young, HOUR).unwrap();
    }

    #[test]
    fn what_is_old_counts_for_nobody() {
        let mut shares = shares(10);
        for _ in 0..5 {
            shares.add(&by(1, 1), HOUR);
        }
        let Err(StoreError::KeysFull { retry_after, .. }) = shares.check(&by(1, 1), 5, HOUR) else {
            panic!("half of it is his")
        };
        let later = HOUR + milliseconds(retry_after);
        assert!((HOUR..=HOUR * 13 / 6).contains(&later), "{retry_after:?}");
        shares.check(&by(1, 1), 5, later + HOUR / PARTS).unwrap();
        assert!(shares.check(&by(1, 1), 5, HOUR + HOUR / 2).is_err());
    }
}
