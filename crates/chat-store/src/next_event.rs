//! What a message becomes in its channel.

use bytes::Bytes;
use chat_model::{Epoch, Event, Seq};
use uuid::{NoContext, Timestamp, Uuid};

use crate::{Append, StoreError};

/// How far a channel's newest event may lie ahead of the clock and still hold `at` back: more than
/// this was a clock gone wrong, which must not pin `at` for years. Milliseconds.
const BELIEVABLE_LEAD: u64 = 5 * 60 * 1000;

pub(crate) struct NextEvent {
    /// The encoded event.
    pub(crate) event: Bytes,
    /// The sender's id, or one of this moment.
    pub(crate) id: Uuid,
    /// Its time, in milliseconds since 1970.
    pub(crate) at: u64,
}

/// The event after one of the time `last_at`, 0 when there is none.
///
/// # Errors
/// [`StoreError::TooLarge`].
pub(crate) fn next_event(
    new: &Append,
    epoch: Epoch,
    seq: Seq,
    last_at: u64,
    now: u64,
) -> Result<NextEvent, StoreError> {
    let at = if last_at > now + BELIEVABLE_LEAD {
        now
    } else {
        now.max(last_at)
    };
    let id = new.message.id.unwrap_or_else(|| time_ordered_id(now));
    let event = Event {
        channel: new.channel,
        epoch,
        seq,
        id,
        at,
        message: &new.message,
    }
    .encode();
    if event.len() > new.max_event_bytes {
        return Err(StoreError::TooLarge {
            size: event.len(),
            limit: new.max_event_bytes,
        });
    }
    Ok(NextEvent { event, id, at })
}

/// A UUIDv7 (RFC 9562 §5.7) of this moment.
fn time_ordered_id(now: u64) -> Uuid {
    let nanoseconds = u32::try_from(now % 1000).expect("a remainder below 1000") * 1_000_000;
    Uuid::new_v7(Timestamp::from_unix(NoContext, now / 1000, nanoseconds))
}
