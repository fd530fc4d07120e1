use std::collections::VecDeque;

use chat_mqtt::{Confirmation, NotConfirmed};
use chat_store::Position;

/// How much may be in flight to the broker at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
}

/// The events in flight, oldest first. Confirmations from several connections arrive in any order, but only
/// the oldest one moves the watermark.
pub(super) struct Flight {
    bounds: Bounds,
    waiting: VecDeque<Waiting>,
    bytes: usize,
}

struct Waiting {
    position: Position,
    bytes: usize,
    confirmation: Confirmation,
}

impl Flight {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            waiting: VecDeque::new(),
            bytes: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether there is room for an event. A single event always has room, whatever its size.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.is_empty()
            || (self.waiting.len() < self.bounds.events && self.bytes + bytes <= self.bounds.bytes)
    }

    pub(super) fn push(&mut self, position: Position, bytes: usize, confirmation: Confirmation) {
        self.bytes += bytes;
        self.waiting.push_back(Waiting {
            position,
            bytes,
            confirmation,
        });
    }

    /// Waits for the oldest event's confirmation; for ever if there is no event.
    pub(super) async fn first(&mut self) -> Result<(), NotConfirmed> {
        match self.waiting.front_mut() {
            Some(oldest) => (&mut oldest.confirmation).await,
            None => std::future::pending().await,
        }
    }

    pub(super) fn pop(&mut self) -> Option<Position> {
        let oldest = self.waiting.pop_front()?;
        self.bytes -= oldest.bytes;
        Some(oldest.position)
    }

    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.bytes = 0;
    }
}
