//! The data types that Hark's services share: channels, events, epochs, cursors and topics.
//!
//! Only values and their encodings; no I/O, no clock, no tasks. `docs/protocol.md` describes what
//! each value means on the wire; this crate is the only place that encodes and parses it.
//!
//! ```
//! use chat_model::{ChannelId, Cursor, Epoch, Position};
//!
//! let channel: ChannelId = "c3743620-4B1B-4c2b-9d80-05b0e5a2c1f0".parse().unwrap();
//! let position = Position::new(Epoch::ZERO, 0);
//! let cursor = Cursor::encode([(channel, position)]);
//! assert_eq!(Cursor::parse(&cursor).unwrap().position(channel), Some(position));
//! ```
#![warn(missing_docs)]

mod channel;
mod cursor;
mod epoch;
mod event;
mod json_fault;
mod message;
mod position;
mod timestamp;
mod topic;
mod wire;

pub use channel::{ChannelId, NotAChannel};
pub use cursor::{Cursor, CursorError};
pub use epoch::{Epoch, NotAnEpoch};
pub use event::{Event, EventHead, EventView, NotAnEvent, SenderView};
pub use json_fault::explain_json;
pub use message::{EventType, MESSAGE_TYPE, MessageError, NewMessage, Sender};
pub use position::{Cut, EpochStart, Head, Position, Seq};
pub use timestamp::format_timestamp;
pub use topic::{BadPrefix, TopicPrefix};
pub use wire::{Damaged, Heads, HeadsQuery, MAX_HEADS, MAX_PAGE_BYTES, MAX_PAGE_EVENTS, Page};
