use std::ops::Range;

use bytes::Bytes;
use chat_model::{ChannelId, EventHead, NotAnEvent, Position, Seq};
use clock::Timestamp;

/// One event in a node's memory: where it stands in the log, and what is written of it, encoded
/// once for all who listen.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The position behind the event.
    pub(crate) position: Position,
    /// When it was stored, if that could be read.
    pub(crate) at: Option<Timestamp>,
    encoded: Encoded,
}

/// An event as a door writes it, and where in it the door finds its parts again. The hub looks only
/// at the stored line in it.
#[derive(Debug, Default)]
pub(crate) struct Encoded {
    /// Everything that is written; empty for a number without an event.
    pub(crate) bytes: Bytes,
    /// Where the stored line stands in it.
    pub(crate) line: Range<u32>,
    /// Two places in it, which mean something to the door alone.
    pub(crate) marks: [u32; 2],
}

/// How a door writes an event, given its head and its stored line.
pub(crate) type Encode = fn(&EventHead, &[u8]) -> Encoded;

impl Entry {
    /// Reads a stored event and has the door encode it.
    ///
    /// # Errors
    /// If it is not an event, or one of another channel.
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

    /// A number whose event the store cannot read any more: it keeps its place, and is told of by a
    /// gap.
    pub(crate) fn damaged(position: Position) -> Self {
        Self {
            position,
            at: None,
            encoded: Encoded::default(),
        }
    }

    /// Whether there is a number only, and no event.
    pub(crate) fn is_damaged(&self) -> bool {
        self.encoded.bytes.is_empty()
    }

    /// The event's number.
    pub(crate) fn seq(&self) -> Seq {
        self.position.seq
    }

    /// The event as the door wrote it.
    pub(crate) fn encoded(&self) -> &Encoded {
        &self.encoded
    }

    /// The event as it was stored: one line of JSON.
    pub(crate) fn line(&self) -> Bytes {
        let Encoded { bytes, line, .. } = &self.encoded;
        bytes.slice(line.start as usize..line.end as usize)
    }

    /// Whether this is another event with the same number of the same log: one of the two is
    /// forged. One that the store can no longer read contradicts nothing.
    pub(crate) fn contradicts(&self, other: &Self) -> bool {
        self.position == other.position
            && !self.is_damaged()
            && !other.is_damaged()
            && self.line() != other.line()
    }

    /// What the event costs in memory, about, in bytes.
    pub(crate) fn cost(&self) -> usize {
        /// The entry, its reference counts, and its places in the ring and in the budget's queue.
        const OVERHEAD: usize = 160;
        self.encoded.bytes.len() + OVERHEAD
    }
}

/// The stored line and nothing else.
#[cfg(test)]
pub(super) fn plain(_head: &EventHead, line: &[u8]) -> Encoded {
    Encoded {
        bytes: Bytes::copy_from_slice(line),
        line: 0..line.len() as u32,
        marks: [0; 2],
    }
}
