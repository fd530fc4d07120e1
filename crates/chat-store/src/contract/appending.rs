use std::sync::Arc;
use std::time::Duration;

use chat_model::{EventHead, EventView, format_timestamp};
use clock::{Clock, Timestamp};
use futures_util::future::join_all;

use super::{Bench, channel, fill, store, text};
use crate::{Appended, PageLimit, PageRange, Store, StoreError};

pub(super) async fn numbers_are_dense_under_concurrent_posts(bench: &impl Bench) {
    const CHANNELS: u128 = 4;
    const POSTS: u64 = 200;
    let opened = bench.open().await;
    let posts = (0..POSTS * 4).map(|number| {
        let channel = channel(u128::from(number) % CHANNELS);
        opened.append(text(channel, &number.to_string()))
    });
    let mut positions = Vec::new();
    for outcome in join_all(posts).await {
        match outcome {
            Ok(Appended::Stored { position, .. }) => positions.push(position),
            other => panic!("not stored: {other:?}"),
        }
    }
    positions.sort();
    positions.dedup();
    assert_eq!(positions.len() as u64, POSTS * 4, "each has its own place");
    for number in 0..CHANNELS {
        let mut after = POSTS.saturating_sub(super::KEPT_PER_CHANNEL / 2);
        let page = opened
            .page(channel(number), PageRange::After(after), PageLimit::MAX)
            .await
            .unwrap();
        assert_eq!(page.head.head, POSTS);
        for event in &page.events {
            after += 1;
            let head = EventHead::parse(event).unwrap();
            assert_eq!((head.channel, head.seq), (channel(number), after));
        }
        assert_eq!(after, POSTS);
    }
    opened.close().await;
}

pub(super) async fn event_is_read_as_it_was_answered(bench: &impl Bench) {
    let opened = bench.open().await;
    let start = opened.published_to().await.unwrap();
    let (_, event) = store(
        &opened,
        text(channel(1), "a\u{0}b\u{2028} \u{1f600} \n\ndata: x"),
    )
    .await;
    let page = opened
        .page(channel(1), PageRange::Newest, PageLimit::MAX)
        .await
        .unwrap();
    assert_eq!(page.events, std::slice::from_ref(&event));
    let outbox = opened.unpublished(start, PageLimit::MAX).await.unwrap();
    assert_eq!(outbox[0].event, event);
    let view = EventView::parse(&event).unwrap();
    assert_eq!(view.id.get_version_num(), 7);
    opened.close().await;
}

pub(super) async fn too_large_event_leaves_nothing(bench: &impl Bench) {
    let opened = bench.open().await;
    let mut large = text(channel(1), &"\u{1}".repeat(20_000));
    large.max_event_bytes = 64 * 1024;
    let good = text(channel(2), "good");
    let outcomes = join_all([large, good].map(|new| opened.append(new))).await;
    match &outcomes[0] {
        Err(StoreError::TooLarge { size, limit }) => {
            assert!(*size > 120_000, "six bytes each: {size}");
            assert_eq!(*limit, 64 * 1024);
        }
        other => panic!("not too large: {other:?}"),
    }
    assert!(matches!(outcomes[1], Ok(Appended::Stored { seq: 1, .. })));
    let heads = opened.heads(&[channel(1)]).await.unwrap();
    assert!(heads[0].epochs.is_empty(), "no log for what was refused");
    opened.close().await;
}

pub(super) async fn time_never_decreases_unless_it_was_wrong(bench: &impl Bench) {
    let opened = bench.open().await;
    let start = bench.clock().now();
    let minutes = |count: i64| Timestamp::from_millis(start.as_millis() + count * 60_000);
    let mut seen = Vec::new();
    // Back by two minutes: held. Then an hour ahead, and back: that hour is not believed.
    for minute in [0, -2, 1, 60, 2, 3] {
        bench.clock().set(minutes(minute));
        let (_, event) = store(&opened, text(channel(1), "tick")).await;
        seen.push(EventView::parse(&event).unwrap().at.into_owned());
    }
    let expected =
        [0, 0, 1, 60, 2, 3].map(|now| format_timestamp(minutes(now).as_millis().unsigned_abs()));
    assert_eq!(seen, expected);
    opened.close().await;
    // The same across a restart.
    bench.clock().set(minutes(1));
    let opened = bench.open().await;
    let (_, event) = store(&opened, text(channel(1), "tick")).await;
    assert_eq!(EventView::parse(&event).unwrap().at, expected[5]);
    opened.close().await;
}

pub(super) async fn log_goes_on_after_reopening(bench: &impl Bench) {
    let opened = bench.open().await;
    fill(&opened, channel(1), 5).await;
    let before = opened.heads(&[channel(1)]).await.unwrap();
    opened.close().await;
    assert!(matches!(
        opened.append(text(channel(1), "too late")).await,
        Err(StoreError::Unavailable { .. })
    ));
    bench.clock().advance(Duration::from_secs(60));
    let opened: Arc<dyn Store> = bench.open().await;
    assert_eq!(opened.heads(&[channel(1)]).await.unwrap(), before);
    assert_eq!(store(&opened, text(channel(1), "six")).await.0, 6);
    opened.check().await.unwrap();
    opened.close().await;
}
