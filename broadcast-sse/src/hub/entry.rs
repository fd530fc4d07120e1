use std::ops::Range;

use bytes::Bytes;
use chat_model::{ChannelId, EventHead, NotAnEvent, Position, Seq};
use clock::Timestamp;

/// One event in a node's memory: its position in the log, and its encoded form, which is created once for
/// all listeners.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The position just after the event.
    pub(crate) position: Position,
    /// When it was stored, if that could be read.
    pub(crate) at: Option<Timestamp>,
    encoded: Encoded,
}

/// An event as encoded by a door, and the places in it that the door needs to find its parts again. The
/// hub uses only the stored line in it.
#[derive(Debug, Default)]
pub(crate) struct Encoded {
    /// All encoded bytes; empty for a number without an event.
    pub(crate) bytes: Bytes,
    /// The range of the stored line in it.
    pub(crate) line: Range<u32>,
    /// Two places in it, which have a meaning only for the door.
    pub(crate) marks: [u32; 2],
}

/// How a door encodes an event, given its head and its stored line.
pub(crate) type Encode = fn(&EventHead, &[u8]) -> Encoded;

impl Entry {
    /// Reads a stored event and lets the door encode it.
    ///
    /// # Errors
    /// If it is not an event of this channel.
    pub(crate) fn new(channel: ChannelId, line: &[u8], encode: Encode) -> Result<Self, NotAnEvent> {
        let head = EventHead::parse(line)?;
        if head.channel != channel {
            return Err(NotAnEvent);
        }
        let at = head.at.and_then(|at| i64::try_from(at).ok());
        Ok(Self {
            position: head.position(),
            at: at.map(Timestamp::from_millis),
            encoded: encode(&head, line),
        })
    }

    /// A number whose event the store can no longer read. It keeps its place and is reported as a gap.
    pub(crate) fn damaged(position: Position) -> Self {
        Self {
            position,
            at: None,
            encoded: Encoded::default(),
        }
    }

    /// Whether there is only a number and no event.
    pub(crate) fn is_damaged(&self) -> bool {
        self.encoded.bytes.is_empty()
    }

    /// The event's number.
    pub(crate) fn seq(&self) -> Seq {
        self.position.seq
    }

    /// The event as the door encoded it.
    pub(crate) fn encoded(&self) -> &Encoded {
        &self.encoded
    }

    /// The event as it was stored: one line of JSON.
    pub(crate) fn line(&self) -> Bytes {
        let Encoded { bytes, line, .. } = &self.encoded;
        bytes.slice(line.start as usize..line.end as usize)
    }

    /// Whether this is a different event with the same number in the same log: then one of the two is
    /// forged. An event that the store can no longer read contradicts nothing.
    pub(crate) fn contradicts(&self, other: &Self) -> bool {
        self.position == other.position
            && !self.is_damaged()
            && !other.is_damaged()
            && self.line() != other.line()
    }

    /// The approximate memory use of the event, in bytes.
    pub(crate) fn cost(&self) -> usize {
        /// The entry, its reference counts, and its places in the ring and in the budget's queue.
        const OVERHEAD: usize = 160;
        self.encoded.bytes.len() + OVERHEAD
    }
}

/// Encodes an event as its stored line only.
#[cfg(test)]
pub(super) fn plain(_head: &EventHead, line: &[u8]) -> Encoded {
    Encoded {
        bytes: Bytes::copy_from_slice(line),
        line: 0..line.len() as u32,
        marks: [0; 2],
    }
}
