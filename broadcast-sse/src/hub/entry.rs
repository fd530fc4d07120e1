use bytes::Bytes;
use chat_model::{ChannelId, EventHead, NotAnEvent, Position, Seq};
use service_kit::clock::Timestamp;

use crate::frame::{self, CHUNK_END, EventFrame};

/// One event in a node's memory: where it stands in the log, and its frame, encoded once for all
/// who listen.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The position behind the event.
    pub(crate) position: Position,
    /// When it was stored, if that could be read.
    pub(crate) at: Option<Timestamp>,
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
        let at = head.at.and_then(|at| i64::try_from(at).ok());
        Ok(Self {
            position,
            at: at.map(Timestamp::from_millis),
            frame,
        })
    }

    /// A number whose event the store cannot read any more: it keeps its place, and is told of by a
    /// gap.
    pub(crate) fn damaged(position: Position) -> Self {
        Self {
            position,
            at: None,
            frame: EventFrame {
                chunk: Bytes::new(),
                start: 0,
                after_id: 0,
                data: 0..0,
            },
        }
    }

    /// Whether there is a number only, and no event.
    pub(crate) fn is_damaged(&self) -> bool {
        self.frame.chunk.is_empty()
    }

    /// The event's number.
    pub(crate) fn seq(&self) -> Seq {
        self.position.seq
    }

    /// The whole frame, whose `id:` is the cursor of a stream of this channel alone.
    pub(crate) fn frame(&self) -> Bytes {
        self.frame.chunk.slice(self.frame.start..self.frame_end())
    }

    /// The same as one chunk.
    pub(crate) fn chunk(&self) -> Bytes {
        self.frame.chunk.clone()
    }

    /// The frame without its `id:` line, for streams of several channels.
    pub(crate) fn frame_without_id(&self) -> Bytes {
        self.frame
            .chunk
            .slice(self.frame.after_id..self.frame_end())
    }

    /// The same, and the end of the chunk that it stands in.
    pub(crate) fn chunk_without_id(&self) -> Bytes {
        self.frame.chunk.slice(self.frame.after_id..)
    }

    /// The `id:` line of the frame.
    pub(crate) fn id_line(&self) -> Bytes {
        self.frame
            .chunk
            .slice(self.frame.start..self.frame.after_id)
    }

    /// The event as it was stored: one line of JSON.
    pub(crate) fn data(&self) -> Bytes {
        self.frame.chunk.slice(self.frame.data.clone())
    }

    fn frame_end(&self) -> usize {
        self.frame.chunk.len() - CHUNK_END.len()
    }

    /// Whether this is another event with the same number of the same log: one of the two is
    /// forged. One that the store can no longer read contradicts nothing.
    pub(crate) fn contradicts(&self, other: &Self) -> bool {
        self.position == other.position
            && !self.is_damaged()
            && !other.is_damaged()
            && self.frame.chunk != other.frame.chunk
    }

    /// What the event costs in memory, about, in bytes.
    pub(crate) fn cost(&self) -> usize {
        /// The entry, its reference counts, and its places in the ring and in the budget's queue.
        const OVERHEAD: usize = 160;
        self.frame.chunk.len() + OVERHEAD
    }
}
