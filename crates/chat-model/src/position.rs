use serde::{Deserialize, Serialize};

use crate::{ChannelId, Epoch};

/// A message's number in its channel: 1, 2, 3 … without gaps.
pub type Seq = u64;

/// A position in a channel's log: everything up to and including `seq` has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Position {
    /// The epoch in which the position was reached.
    pub epoch: Epoch,
    /// The last number that has been read; 0 at the start of the log.
    pub seq: Seq,
}

impl Position {
    /// The position just after `seq`, reached in `epoch`.
    pub fn new(epoch: Epoch, seq: Seq) -> Self {
        Self { epoch, seq }
    }
}

/// An epoch and its first number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: Epoch,
    /// The first number that was or will be assigned in it.
    pub from: Seq,
}

/// The state of a channel's log in the store at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The channel.
    pub channel: ChannelId,
    /// The current epoch, [`Epoch::ZERO`] while there is no log.
    pub epoch: Epoch,
    /// The newest number; 0 if there is none.
    pub head: Seq,
    /// The oldest number that is still kept; `head + 1` if nothing is kept.
    pub first: Seq,
    /// The epochs of this log, oldest first, the current one last; empty while there is no log.
    pub epochs: Vec<EpochStart>,
}

/// Proof that a log was cut back behind a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Where the log continues: everything up to this position was kept.
    pub kept: Position,
}

impl Head {
    /// The head of a channel that has no log.
    pub fn none(channel: ChannelId) -> Self {
        Self {
            channel,
            epoch: Epoch::ZERO,
            head: 0,
            first: 1,
            epochs: Vec::new(),
        }
    }

    /// The position at the end of the log.
    pub fn position(&self) -> Position {
        Position::new(self.epoch, self.head)
    }

    /// Whether the log was cut back behind `position`, and to where.
    ///
    /// The answer is proof only if this head was requested after `position` was reached. A position
    /// in an older epoch is valid up to the start of the next epoch. An epoch that the head does not
    /// list may belong to another log, which was created under a wrong clock and no longer exists.
    pub fn cut(&self, position: Position) -> Option<Cut> {
        Cut::by_unknown_epoch(&self.epochs, position)
            .or_else(|| Cut::by_epoch(&self.epochs, position))
            .or_else(|| {
                (position.seq > self.head).then_some(Cut {
                    kept: self.position(),
                })
            })
    }
}

impl Cut {
    /// The part of [`Head::cut`] that needs no fresh head, because an epoch that was listed once
    /// stays valid: whether a later one of these epochs cut the log back behind `position`.
    pub fn by_epoch(epochs: &[EpochStart], position: Position) -> Option<Self> {
        let at = epochs
            .iter()
            .position(|start| start.epoch == position.epoch)?;
        Self::at_start(epochs.get(at + 1)?, position)
    }

    /// The part of [`Head::cut`] for an epoch that a fresh head does not list.
    ///
    /// An epoch older than all in the list may have been left out of it. An epoch between two others
    /// was most likely cut off as a whole by the next epoch, which was restored from the same copy or
    /// an older one; but then `position` is not before the start of that next epoch. Any other epoch
    /// belongs to another log.
    pub fn by_unknown_epoch(epochs: &[EpochStart], position: Position) -> Option<Self> {
        if position.seq == 0 || epochs.iter().any(|start| start.epoch == position.epoch) {
            return None;
        }
        let later = epochs.iter().position(|start| start.epoch > position.epoch);
        let cut = later.and_then(|at| Self::at_start(&epochs[at], position));
        if cut.is_some() || later == Some(0) {
            return cut;
        }
        let first = epochs.first().map_or(Epoch::ZERO, |first| first.epoch);
        Some(Self {
            kept: Position::new(first, 0),
        })
    }

    fn at_start(start: &EpochStart, position: Position) -> Option<Self> {
        (position.seq >= start.from).then(|| Self {
            kept: Position::new(start.epoch, start.from - 1),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(value: u64) -> Epoch {
        Epoch::from_value(value).unwrap()
    }

    fn head(epochs: &[(u64, Seq)], head: Seq) -> Head {
        let epochs: Vec<_> = epochs
            .iter()
            .map(|&(value, from)| EpochStart {
                epoch: epoch(value),
                from,
            })
            .collect();
        Head {
            channel: uuid::Uuid::nil().into(),
            epoch: epochs.last().map_or(Epoch::ZERO, |start| start.epoch),
            head,
            first: 1,
            epochs,
        }
    }

    #[test]
    fn an_older_epoch_is_good_up_to_where_the_next_one_starts() {
        let head = head(&[(10, 1), (20, 101), (30, 151)], 200);
        assert_eq!(head.cut(Position::new(epoch(10), 100)), None);
        let kept = Position::new(epoch(20), 100);
        assert_eq!(head.cut(Position::new(epoch(10), 101)), Some(Cut { kept }));
        assert_eq!(head.cut(Position::new(epoch(20), 150)), None);
        let kept = Position::new(epoch(30), 150);
        assert_eq!(head.cut(Position::new(epoch(20), 151)), Some(Cut { kept }));
    }

    #[test]
    fn a_position_beyond_the_head_was_cut() {
        let short = head(&[(10, 1)], 40);
        let kept = short.position();
        assert_eq!(short.cut(Position::new(epoch(10), 40)), None);
        assert_eq!(short.cut(Position::new(epoch(10), 41)), Some(Cut { kept }));
        let none = head(&[], 0);
        let kept = Position::default();
        assert_eq!(none.cut(Position::new(epoch(10), 5)), Some(Cut { kept }));
        assert_eq!(none.cut(Position::default()), None);
    }

    #[test]
    fn an_epoch_that_is_not_named_is_of_a_part_that_is_gone_or_of_another_log() {
        let head = head(&[(10, 1), (20, 31)], 70);
        let all = Cut {
            kept: Position::new(epoch(10), 0),
        };
        let part = Cut {
            kept: Position::new(epoch(20), 30),
        };
        for (unknown, seq, cut) in [
            (15, 1, all),
            (15, 30, all),
            (15, 31, part),
            (15, 71, part),
            (99, 1, all),
            (99, 31, all),
            (99, 71, all),
        ] {
            let position = Position::new(epoch(unknown), seq);
            assert_eq!(head.cut(position), Some(cut), "{position:?}");
            assert_eq!(Cut::by_epoch(&head.epochs, position), None, "not yet");
        }
        for unknown in [15, 99] {
            let beginning = Position::new(epoch(unknown), 0);
            assert_eq!(head.cut(beginning), None, "nothing has been read yet");
        }
    }

    #[test]
    fn an_epoch_older_than_all_may_have_been_left_out_of_the_list() {
        let head = head(&[(10, 31), (20, 61)], 70);
        let kept = Position::new(epoch(10), 30);
        assert_eq!(head.cut(Position::new(epoch(5), 30)), None);
        assert_eq!(head.cut(Position::new(epoch(5), 31)), Some(Cut { kept }));
    }
}
