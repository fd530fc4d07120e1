//! What every test of a store posts, and when.

use chat_model::{ChannelId, NewMessage};
use chat_store::{Append, Appended, Owner, Store, StoreError};
use clock::{TestClock, Timestamp};
use uuid::Uuid;

/// 2026-11-21T09:00:00Z.
const START: i64 = 1_795_251_600_000;

pub(crate) fn clock() -> TestClock {
    TestClock::new(Timestamp::from_millis(START))
}

pub(crate) fn channel(number: u128) -> ChannelId {
    Uuid::from_u128(number).into()
}

pub(crate) fn text(number: u128, text: impl Into<String>) -> Append {
    Append {
        channel: channel(number),
        message: NewMessage::text(text),
        key: None,
        owner: Owner::default(),
        max_event_bytes: 64 * 1024,
    }
}

pub(crate) async fn post(store: &impl Store, new: Append) -> Result<u64, StoreError> {
    store.append(new).await.map(|appended| match appended {
        Appended::Stored { seq, .. } | Appended::Repeated { seq, .. } => seq,
    })
}
