//! An example log of a channel for tests: one epoch, with an event for every number.

use bytes::Bytes;
use chat_model::{ChannelId, Epoch, EpochStart, Event, Head, NewMessage, Seq};
use uuid::Uuid;

use super::entry::{Entry, plain};

pub(super) fn channel() -> ChannelId {
    Uuid::nil().into()
}

fn epoch() -> Epoch {
    Epoch::from_value(100).unwrap()
}

/// The store's answer if this is the newest event.
pub(super) fn head(seq: Seq) -> Head {
    Head {
        channel: channel(),
        epoch: epoch(),
        head: seq,
        first: 1,
        epochs: vec![EpochStart {
            epoch: epoch(),
            from: 1,
        }],
    }
}

/// An event that was stored at this time, in milliseconds.
pub(super) fn entry(seq: Seq, at: u64) -> Entry {
    entry_with(seq, at, "a")
}

/// The same in another channel.
pub(super) fn entry_of(channel: ChannelId, seq: Seq) -> Entry {
    Entry::new(channel, &event(channel, seq, 0, "a"), plain).unwrap()
}

/// An event that somebody else published under this number.
pub(super) fn forged(seq: Seq) -> Entry {
    entry_with(seq, 0, "forged")
}

fn entry_with(seq: Seq, at: u64, text: &str) -> Entry {
    Entry::new(channel(), &event(channel(), seq, at, text), plain).unwrap()
}

fn event(channel: ChannelId, seq: Seq, at: u64, text: &str) -> Bytes {
    let event = Event {
        channel,
        epoch: epoch(),
        seq,
        id: Uuid::from_u128(u128::from(seq)),
        at,
        message: &NewMessage::text(text),
    };
    event.encode()
}
