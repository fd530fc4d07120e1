/// A place in the order in which the store hands out what was committed.
///
/// Only comparisons have a meaning. A store with several writers has a lane for each, and orders
/// positions within a lane only; the SQLite store has one lane, 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    lane: u32,
    offset: u64,
}

impl Position {
    /// Before everything in lane 0. An outbox begins at [`Outbox::published_to`](crate::Outbox::published_to) instead, which
    /// knows the lane.
    pub const START: Self = Self { lane: 0, offset: 0 };

    /// A place in a lane; for implementations.
    #[must_use]
    pub fn new(lane: u32, offset: u64) -> Self {
        Self { lane, offset }
    }

    /// The lane.
    #[must_use]
    pub fn lane(self) -> u32 {
        self.lane
    }

    /// The place in the lane. It grows, with holes.
    #[must_use]
    pub fn offset(self) -> u64 {
        self.offset
    }
}
