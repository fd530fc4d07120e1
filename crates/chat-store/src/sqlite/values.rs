//! Epochs and positions as the database keeps them.

use chat_model::Epoch;

use crate::Position;

/// An epoch as the database keeps it.
pub(super) fn stored_epoch(column: usize, value: i64) -> rusqlite::Result<Epoch> {
    u64::try_from(value)
        .ok()
        .and_then(Epoch::from_value)
        .ok_or(rusqlite::Error::IntegralValueOutOfRange(column, value))
}

/// An epoch as the database keeps it.
pub(super) fn epoch_value(epoch: Epoch) -> i64 {
    i64::try_from(epoch.value()).expect("an epoch has 49 bits")
}

/// The only lane of a store with one writer.
const LANE: u32 = 0;

/// The store counts its positions up from 1, so that none is negative.
pub(super) fn to_position(pos: i64) -> Position {
    Position::new(LANE, u64::try_from(pos).unwrap_or(0))
}

/// A position beyond all that the store can hold is as good as the last.
pub(super) fn from_position(position: Position) -> i64 {
    i64::try_from(position.offset()).unwrap_or(i64::MAX)
}
