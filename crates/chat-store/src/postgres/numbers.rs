//! Numbers as the database has them: signed, and never negative but by damage.

use chat_model::Epoch;

/// A number that counts up from 0 and never comes near the end of either type.
pub(super) fn to_stored_number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number that the database keeps, never negative.
pub(super) fn from_stored_number(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// An epoch as the database keeps it; what is none counts as that before all others.
pub(super) fn from_stored(value: i64) -> Epoch {
    Epoch::from_value(from_stored_number(value)).unwrap_or(Epoch::ZERO)
}

pub(super) fn to_stored(epoch: Epoch) -> i64 {
    to_stored_number(epoch.value())
}

/// The lane of a position, as callers know it: the database counts lanes up from 1.
pub(super) fn lane_name(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

/// Its number in the database. What is beyond all that the database counts is none of its lanes.
pub(super) fn lane_number(name: u32) -> i32 {
    i32::try_from(name).unwrap_or(0)
}
