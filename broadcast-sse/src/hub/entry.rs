use bytes::Bytes;
use chat_model::{ChannelId, EventHead, NotAnEvent, Position, Seq};

use crate::frame::{self, EventFrame};

/// One event in a node's memory: where it stands in the log, and its frame, encoded once for all
/// who listen.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The position behind the event.
    pub(crate) position: Position,
    frame: EventFrame,
}

impl Entry {
    /// Reads an encoded event and makes its frame.
    ///
    /// # Errors
    /// If it is not an event, or one of another channel.
    pub(crate) fn new(channel: ChannelId, line: &[u8]) -> Result<Self, NotAnEvent> {
        let head = EventHead::parse(line)?;
        if head.channel != channel {
            return Err(NotAnEvent);
        }
        let position = head.position();
        let frame = frame::event(channel, position, head.event_type.as_deref(), line);
        Ok(Self { position, frame })
    }

    /// The event's number.
    pub(crate) fn seq(&self) -> Seq {
        self.position.seq
    }

    /// The whole frame, whose `id:` is the cursor of a stream of this channel alone.
    pub(crate) fn frame(&self) -> Bytes {
        self.frame.whole.clone()
    }

    /// The frame without its `id:` line, for streams of several channels.
    pub(crate) fn frame_without_id(&self) -> Bytes {
        self.frame.whole.slice(self.frame.after_id..)
    }

    /// The `id:` line of the frame.
    pub(crate) fn id_line(&self) -> Bytes {
        self.frame.whole.slice(..self.frame.after_id)
    }

    /// The event as it was stored: one line of JSON.
    pub(crate) fn data(&self) -> Bytes {
        self.frame.whole.slice(self.frame.data.clone())
    }

    /// What the event costs in memory, about, in bytes.
    pub(crate) fn cost(&self) -> usize {
        /// The entry, its reference counts, and its places in the ring and in the budget's queue.
        const OVERHEAD: usize = 160;
        self.frame.whole.len() + OVERHEAD
    }
}
