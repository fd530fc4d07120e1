use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::stamp::Stamp;

/// So many holes are remembered for one stream; a server that loses more has
/// what comes late counted as doubled.
const REMEMBERED: usize = 65_536;

/// What every stream received, against what it had to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Faults {
    /// Acknowledged to the publisher, and never delivered.
    pub(crate) lost: u64,
    /// Delivered a second time on the same stream.
    pub(crate) doubled: u64,
    /// Delivered after a later one of the same publisher.
    pub(crate) disordered: u64,
    /// Delivered on a stream of another channel.
    pub(crate) misdirected: u64,
    /// Streams that the server ended.
    pub(crate) ended: u64,
}

impl Faults {
    /// Whether every stream got everything once and in order.
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What one stream has received of its channel.
#[derive(Debug, Default)]
pub(crate) struct Received {
    /// The next seq of each publisher.
    next: Vec<u32>,
    /// Publisher and seq of what was skipped.
    missing: BTreeSet<(u16, u32)>,
}

/// What an event is to its stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Expected,
    Late,
    Doubled,
}

impl Received {
    /// A stream that begins before these.
    pub(crate) fn starting_at(next: Vec<u32>) -> Self {
        Self {
            next,
            missing: BTreeSet::new(),
        }
    }

    /// The next seq of each publisher.
    pub(crate) fn next(&self) -> &[u32] {
        &self.next
    }

    pub(crate) fn take(&mut self, stamp: Stamp) -> Verdict {
        let publisher = usize::from(stamp.publisher);
        if self.next.len() <= publisher {
            self.next.resize(publisher + 1, 0);
        }
        let next = &mut self.next[publisher];
        if stamp.seq < *next {
            return if self.missing.remove(&(stamp.publisher, stamp.seq)) {
                Verdict::Late
            } else {
                Verdict::Doubled
            };
        }
        let room = REMEMBERED - self.missing.len().min(REMEMBERED);
        let skipped = (*next..stamp.seq).take(room);
        self.missing
            .extend(skipped.map(|seq| (stamp.publisher, seq)));
        *next = stamp.seq + 1;
        Verdict::Expected
    }

    /// How many of these (the number that each publisher has sent) never came.
    pub(crate) fn lost(&self, sent: impl Iterator<Item = u32>) -> u64 {
        let behind = sent.enumerate().map(|(publisher, sent)| {
            let next = self.next.get(publisher).copied().unwrap_or(0);
            u64::from(sent.saturating_sub(next))
        });
        behind.sum::<u64>() + self.missing.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(publisher: u16, seq: u32) -> Stamp {
        Stamp {
            publisher,
            channel: 0,
            seq,
            sent: 0,
        }
    }

    #[test]
    fn loss_doubling_and_disorder_are_told_apart() {
        let mut received = Received::starting_at(vec![5]);
        for (publisher, seq, verdict) in [
            (0, 5, Verdict::Expected),
            (1, 0, Verdict::Expected),
            (0, 8, Verdict::Expected),
            (0, 7, Verdict::Late),
            (0, 7, Verdict::Doubled),
            (0, 8, Verdict::Doubled),
            (0, 4, Verdict::Doubled),
        ] {
            assert_eq!(received.take(stamp(publisher, seq)), verdict, "{seq}");
        }
        // 6 was skipped, 9 and the other publisher's 1 and 2 never came.
        assert_eq!(received.lost([10, 3].into_iter()), 4);
    }
}
