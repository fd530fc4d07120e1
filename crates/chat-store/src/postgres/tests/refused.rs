//! What the server refuses: the reason is told as it is, and the next batch does not suffer for it.

use std::time::Duration;

use chat_model::NewMessage;
use uuid::Uuid;

use super::control::{Database, Instance, Stop, channel};
use crate::{Append, Appended, Log, StoreError};

/// More than the statements of a batch that begins a channel, with a sender's id.
const STATEMENTS: u32 = 10;

const DISK_FULL: &str = "53100";
const DEADLOCK: &str = "40P01";
const TIMED_OUT: &str = "57014";
const BAD_DATA: &str = "22P05";

/// With an id of the sender's, so that a batch has all of its statements.
async fn post(instance: &Instance, number: u32, id: u128) -> Result<Appended, StoreError> {
    let mut message = NewMessage::text("words");
    message.id = Some(Uuid::from_u128(id));
    let new = Append {
        channel: channel(number.into()),
        message,
        key: None,
        owner: crate::Owner::default(),
        max_event_bytes: 64 * 1024,
    };
    instance.store.append(new).await
}

/// The number, if it was stored by this post.
fn stored(answer: &Result<Appended, StoreError>) -> Option<u64> {
    match answer {
        Ok(Appended::Stored { seq, .. }) => Some(*seq),
        _ => None,
    }
}

#[tokio::test]
async fn refused_statement_tells_its_reason_and_the_next_batch_is_stored() {
    let database = Database::new().await;
    let mut options = database.options();
    options.timing.lease = Duration::from_secs(600);
    let instance = database.open_with(options).await;
    let mut refused = 0;
    for (code, number) in [DISK_FULL, DEADLOCK, TIMED_OUT, BAD_DATA]
        .into_iter()
        .zip(0..)
    {
        for statement in 0..STATEMENTS {
            // A channel of its own: the first batch of a channel has the most statements.
            let number = number * 100 + statement;
            instance.control.arm_after(statement, Stop::Refuse(code));
            let answer = post(&instance, number, 1).await;
            instance.control.disarm();
            let what = format!("{code} at statement {statement}: {answer:?}");
            let next = match &answer {
                Err(StoreError::Unavailable { reason }) => {
                    assert!(code != DEADLOCK && reason.contains(code), "{what}");
                    refused += 1;
                    1
                }
                // Tried again after a deadlock.
                _ => {
                    assert_eq!(stored(&answer), Some(1), "{what}");
                    2
                }
            };
            let innocent = post(&instance, number, 2).await;
            assert_eq!(stored(&innocent), Some(next), "{what}, then {innocent:?}");
        }
    }
    assert!(refused >= 3 * 7, "{refused} posts were refused");
    let lanes = "SELECT count(*) FROM lanes";
    assert_eq!(database.run(lanes).await, "1", "the lane was kept");
}
