//! Two faults in a row, the second while the writer finds out what became of the first.

use std::sync::Arc;
use std::time::Duration;

use chat_model::{EventView, NewMessage};
use futures_util::future::join_all;

use super::control::{Database, Instance, Stop, channel};
use crate::{Append, Appended, Log, PageLimit, PageRange};

/// The places of a batch: before and after each of its five statements, and one more.
const FIRST: u32 = 11;
/// Those of a connection that is made anew, with room for what it does about the lane, and for the
/// first statements of the batch that is stored again.
const SECOND: u32 = 20;
const AT_ONCE: u32 = 10;

/// Posts with two faults in a row, for each pair of places that is this instance's to try.
async fn meet_all_pairs(instance: &Instance, number: u32, faults: (Stop, Stop)) {
    let pairs = (0..FIRST).flat_map(|first| (0..SECOND).map(move |second| (first, second)));
    let pairs = pairs.filter(|(first, second)| (first + second) % AT_ONCE == number);
    let mut seq = 0;
    for (first, second) in pairs {
        instance.control.arm_after(first, faults.0);
        instance.control.arm_after(second, faults.1);
        let new = Append {
            channel: channel(number.into()),
            message: NewMessage::text(format!("{first}, {second}")),
            key: None,
            owner: crate::Owner::default(),
            max_event_bytes: 64 * 1024,
        };
        let stored = instance.store.append(new).await;
        let Ok(Appended::Stored { seq: given, .. }) = stored else {
            panic!("at {first} and {second}: {stored:?}");
        };
        instance.control.disarm();
        seq += 1;
        let page = PageRange::After(seq - 1);
        let page = instance
            .store
            .page(channel(number.into()), page, PageLimit::MAX)
            .await
            .unwrap();
        let texts = page
            .events
            .iter()
            .map(|event| EventView::parse(event).unwrap().text.unwrap());
        let texts: Vec<_> = texts.map(std::borrow::Cow::into_owned).collect();
        assert_eq!(
            texts,
            [format!("{first}, {second}")],
            "at {first} and {second}"
        );
        assert_eq!(
            (given, page.head.head),
            (seq, seq),
            "at {first} and {second}"
        );
    }
}

#[tokio::test]
async fn two_lost_connections_in_a_row_store_a_message_once() {
    let database = Database::new().await;
    let mut instances = Vec::new();
    for _ in 0..AT_ONCE {
        let mut options = database.options();
        // Nothing but the batch and the new connections.
        options.timing.lease = Duration::from_secs(600);
        options.timing.patience = Duration::from_secs(10);
        instances.push(Arc::new(database.open_with(options).await));
    }
    let all = instances
        .iter()
        .zip(0..)
        .map(|(instance, number)| async move {
            meet_all_pairs(instance, number, (Stop::Cut, Stop::Cut)).await;
        });
    join_all(all).await;
}
