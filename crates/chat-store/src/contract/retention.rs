use std::time::Duration;

use chat_model::Head;
use clock::Timestamp;

use super::{Bench, KEPT_BYTES_PER_CHANNEL, channel, fill, store, text, with_id};
use crate::{PageLimit, PageRange};

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

pub(super) async fn one_channel_cannot_push_out_the_others(bench: &impl Bench) {
    let opened = bench.open().await;
    fill(&opened, channel(1), 5).await;
    let words = "x".repeat(usize::try_from(KEPT_BYTES_PER_CHANNEL / 10).unwrap());
    for _ in 0..30 {
        store(&opened, text(channel(2), &words)).await;
    }
    bench.expire(&opened).await;
    let heads = opened.heads(&[channel(1), channel(2)]).await.unwrap();
    assert_eq!((heads[0].first, heads[0].head), (1, 5));
    let (first, head) = (heads[1].first, heads[1].head);
    assert_eq!(head, 30);
    assert!((20..=24).contains(&first), "{first}");
    let range = PageRange::After(0);
    let page = opened.page(channel(2), range, PageLimit::MAX).await;
    let events = page.unwrap().events;
    assert_eq!(events.len() as u64, head + 1 - first);
    let bytes: usize = events.iter().map(bytes::Bytes::len).sum();
    assert!(bytes as u64 <= KEPT_BYTES_PER_CHANNEL);
    let stats = opened.stats();
    assert_eq!((stats.expired, stats.expired_early), (first - 1, first - 1));
    // It goes on from there, also for whoever opens it next.
    opened.close().await;
    let opened = bench.open().await;
    for _ in 0..5 {
        store(&opened, text(channel(2), &words)).await;
    }
    bench.expire(&opened).await;
    let heads = opened.heads(&[channel(1), channel(2)]).await.unwrap();
    assert_eq!((heads[0].first, heads[1].first), (1, first + 5));
    opened.close().await;
}

pub(super) async fn forgotten_channel_begins_anew_in_a_later_epoch(bench: &impl Bench) {
    let opened = bench.open().await;
    fill(&opened, channel(1), 3).await;
    let old = opened.heads(&[channel(1)]).await.unwrap().remove(0);
    bench.clock().advance(YEAR);
    bench.expire(&opened).await;
    let empty = opened.heads(&[channel(1)]).await.unwrap().remove(0);
    assert_eq!((empty.epoch, empty.head, empty.first), (old.epoch, 3, 4));
    store(&opened, with_id(channel(2), "here", 7)).await;
    // All logs get an epoch, which this one would have as well.
    opened.new_epoch().await.unwrap();
    let later = opened.heads(&[channel(1)]).await.unwrap().remove(0);
    assert!(later.epoch > old.epoch);
    bench.clock().advance(YEAR / 2);
    bench.expire(&opened).await;
    let heads = opened.heads(&[channel(1), channel(2)]).await.unwrap();
    assert_eq!(heads[0], Head::none(channel(1)));
    assert_eq!((heads[1].first, heads[1].head), (2, 1), "not as long empty");
    assert_eq!(opened.stats().channels_forgotten, 1);
    opened.close().await;

    // Whatever the clock says by now.
    let opened = bench.open().await;
    assert_eq!(
        heads,
        opened.heads(&[channel(1), channel(2)]).await.unwrap()
    );
    bench.clock().set(Timestamp::from_millis(1_000));
    let (seq, event) = store(&opened, text(channel(1), "again")).await;
    assert_eq!(seq, 1);
    let page = opened
        .page(channel(1), PageRange::After(0), PageLimit::MAX)
        .await
        .unwrap();
    assert!(page.head.epoch > later.epoch, "{:?}", page.head);
    assert_eq!((page.head.first, page.head.head), (1, 1));
    assert_eq!(page.head.epochs.len(), 1);
    assert_eq!(page.events, [event]);
    // One that only comes back in time is what it was.
    assert_eq!(store(&opened, text(channel(2), "on")).await.0, 2);
    opened.close().await;
}
