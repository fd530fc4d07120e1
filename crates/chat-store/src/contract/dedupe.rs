use std::time::Duration;

use futures_util::future::join_all;
use uuid::Uuid;

use super::{Bench, KEPT_PER_CHANNEL, MOST_KEYS, channel, fill, store, text, with_id};
use crate::{Append, Appended, IdempotencyKey, Owner, ReusedKey, Share, StoreError};

const HOUR: Duration = Duration::from_secs(3600);

fn with_key(words: &str, key: &str) -> Append {
    let mut new = text(channel(1), words);
    new.key = Some(IdempotencyKey::new(key.as_bytes()));
    new
}

pub(super) async fn same_id_or_key_is_stored_once(bench: &impl Bench) {
    let opened = bench.open().await;
    let both = Append {
        key: Some(IdempotencyKey::new(b"key")),
        ..with_id(channel(1), "both", 9)
    };
    for new in [with_id(channel(1), "id", 7), with_key("key", "k"), both] {
        let (seq, event) = store(&opened, new.clone()).await;
        match opened.append(new).await {
            Ok(Appended::Repeated {
                event: Some(again),
                seq: same,
                ..
            }) => assert_eq!((same, again), (seq, event)),
            other => panic!("not repeated: {other:?}"),
        }
    }
    // Each channel has its own ids.
    assert_eq!(store(&opened, with_id(channel(2), "id", 7)).await.0, 1);
    assert_eq!(store(&opened, text(channel(1), "next")).await.0, 4);
    opened.close().await;
    let opened = bench.open().await;
    let again = opened.append(with_id(channel(1), "id", 7)).await;
    assert!(matches!(again, Ok(Appended::Repeated { seq: 1, id, .. }) if id == Uuid::from_u128(7)));
    opened.close().await;
}

pub(super) async fn same_key_at_the_same_time_is_stored_once(bench: &impl Bench) {
    let opened = bench.open().await;
    let posts = (0..100).map(|_| opened.append(with_key("once", "k")));
    let outcomes = join_all(posts).await;
    let stored = |outcome: &&Result<Appended, _>| matches!(outcome, Ok(Appended::Stored { .. }));
    let repeated = |outcome: &&Result<Appended, _>| {
        matches!(
            outcome,
            Ok(Appended::Repeated {
                event: Some(_),
                seq: 1,
                ..
            })
        )
    };
    assert_eq!(outcomes.iter().filter(stored).count(), 1);
    assert_eq!(outcomes.iter().filter(repeated).count(), 99);
    opened.close().await;
}

pub(super) async fn another_message_with_the_key_is_refused(bench: &impl Bench) {
    let opened = bench.open().await;
    store(&opened, with_id(channel(1), "first", 7)).await;
    store(&opened, with_key("second", "k")).await;
    let refused = |what: ReusedKey, outcome: Result<Appended, StoreError>| match outcome {
        Err(StoreError::KeyReused { what: found }) => assert_eq!(found, what),
        other => panic!("not refused: {other:?}"),
    };
    refused(
        ReusedKey::Id,
        opened.append(with_id(channel(1), "other", 7)).await,
    );
    refused(
        ReusedKey::IdempotencyKey,
        opened.append(with_key("other", "k")).await,
    );
    assert_eq!(store(&opened, text(channel(1), "next")).await.0, 3);
    opened.close().await;
}

/// A message with an id is known by that alone, and takes the room of one key.
pub(super) async fn key_beside_an_id_is_not_remembered(bench: &impl Bench) {
    let opened = bench.open().await;
    let with_both = |words: &str, id: u128| Append {
        key: Some(IdempotencyKey::new(b"k")),
        ..with_id(channel(1), words, id)
    };
    store(&opened, with_both("one", 1)).await;
    assert_eq!(opened.stats().keys, 1);
    for again in [with_both("one", 1), with_id(channel(1), "one", 1)] {
        let again = opened.append(again).await;
        assert!(
            matches!(again, Ok(Appended::Repeated { seq: 1, .. })),
            "{again:?}"
        );
    }
    assert_eq!(store(&opened, with_both("two", 2)).await.0, 2);
    assert_eq!(store(&opened, with_key("three", "k")).await.0, 3);
    opened.close().await;
}

/// A sender who wants all of the room gets half of it, and others never notice.
pub(super) async fn greedy_sender_fills_his_share_only(bench: &impl Bench) {
    let opened = bench.open().await;
    let by = |owner: u64, id: u128| Append {
        owner: Owner::new(owner),
        ..with_id(channel(id % 5), "x", id)
    };
    let mut taken = 0;
    let (share, retry_after) = loop {
        match opened.append(by(1, 1_000 + u128::from(taken))).await {
            Ok(Appended::Stored { .. }) => taken += 1,
            Err(StoreError::KeysFull { share, retry_after }) => break (share, retry_after),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((taken, share), (MOST_KEYS / 2, Share::Sender));
    assert!(retry_after > Duration::from_secs(60), "{retry_after:?}");
    // Without an id he goes on; others with one do, and he too when his are old.
    let without = Append {
        owner: Owner::new(1),
        ..text(channel(1), "x")
    };
    store(&opened, without).await;
    for owner in 2..MOST_KEYS / 4 {
        store(&opened, by(owner, owner.into())).await;
    }
    let stats = opened.stats();
    assert_eq!((stats.keys_refused_by_share, stats.keys_refused), (1, 0));
    bench.clock().advance(2 * HOUR);
    store(&opened, by(1, 999)).await;
    opened.close().await;
}

pub(super) async fn key_is_forgotten_after_a_day(bench: &impl Bench) {
    let opened = bench.open().await;
    store(&opened, with_id(channel(1), "one", 7)).await;
    bench.clock().advance(23 * HOUR);
    let again = opened.append(with_id(channel(1), "one", 7)).await;
    assert!(matches!(again, Ok(Appended::Repeated { .. })));
    bench.clock().advance(HOUR);
    let again = opened.append(with_id(channel(1), "another", 7)).await;
    assert!(
        matches!(again, Ok(Appended::Stored { seq: 2, .. })),
        "{again:?}"
    );
    bench.clock().advance(23 * HOUR);
    bench.expire(&opened).await;
    let again = opened.append(with_id(channel(1), "another", 7)).await;
    assert!(
        matches!(again, Ok(Appended::Repeated { seq: 2, .. })),
        "{again:?}"
    );
    opened.close().await;
}

pub(super) async fn repeated_post_of_an_expired_event_names_it(bench: &impl Bench) {
    let opened = bench.open().await;
    store(&opened, with_id(channel(1), "one", 7)).await;
    fill(&opened, channel(1), KEPT_PER_CHANNEL * 2).await;
    bench.expire(&opened).await;
    let epoch = opened.heads(&[channel(1)]).await.unwrap()[0].epoch;
    let again = opened.append(with_id(channel(1), "one", 7)).await.unwrap();
    let expected = Appended::Repeated {
        event: None,
        epoch,
        seq: 1,
        id: Uuid::from_u128(7),
    };
    assert_eq!(again, expected);
    opened.close().await;
}
