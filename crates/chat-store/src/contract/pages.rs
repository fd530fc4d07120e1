use std::sync::Arc;

use chat_model::{EventHead, Head, Seq};

use super::{Bench, KEPT_PER_CHANNEL, channel, fill, store, text};
use crate::{PageLimit, PageRange, Store};

async fn seqs(store: &Arc<dyn Store>, range: PageRange, limit: usize) -> Vec<Seq> {
    let page = store
        .page(channel(1), range, PageLimit::events(limit))
        .await
        .unwrap();
    let seq = |event: &bytes::Bytes| EventHead::parse(event).unwrap().seq;
    page.events.iter().map(seq).collect()
}

pub(super) async fn unknown_channel_is_empty(bench: &impl Bench) {
    let opened = bench.open().await;
    for range in [PageRange::After(0), PageRange::Before(9), PageRange::Newest] {
        let page = opened
            .page(channel(1), range, PageLimit::MAX)
            .await
            .unwrap();
        assert_eq!((page.head, page.events.len()), (Head::none(channel(1)), 0));
    }
    store(&opened, text(channel(2), "here")).await;
    let heads = opened
        .heads(&[channel(1), channel(2), channel(1)])
        .await
        .unwrap();
    assert_eq!(heads[0], Head::none(channel(1)));
    assert_eq!(heads[2], heads[0]);
    let known = &heads[1];
    assert_eq!((known.channel, known.head, known.first), (channel(2), 1, 1));
    assert_eq!(known.epochs.last().unwrap().epoch, known.epoch);
    assert_eq!(known.epochs[0].from, 1);
    assert!(opened.heads(&[]).await.unwrap().is_empty());
    opened.close().await;
}

pub(super) async fn pages_have_exact_edges(bench: &impl Bench) {
    let opened = bench.open().await;
    fill(&opened, channel(1), 10).await;
    fill(&opened, channel(2), 1).await;
    let all: Vec<Seq> = (1..=10).collect();
    assert_eq!(seqs(&opened, PageRange::After(0), 1000).await, all);
    assert_eq!(seqs(&opened, PageRange::After(0), 3).await, [1, 2, 3]);
    assert_eq!(seqs(&opened, PageRange::After(3), 3).await, [4, 5, 6]);
    assert_eq!(seqs(&opened, PageRange::After(9), 3).await, [10]);
    assert!(seqs(&opened, PageRange::After(10), 3).await.is_empty());
    assert!(
        seqs(&opened, PageRange::After(Seq::MAX), 3)
            .await
            .is_empty()
    );
    assert_eq!(seqs(&opened, PageRange::Newest, 3).await, [8, 9, 10]);
    assert_eq!(seqs(&opened, PageRange::Newest, 1000).await, all);
    assert_eq!(
        seqs(&opened, PageRange::Newest, 0).await,
        [10],
        "at least one"
    );
    assert_eq!(seqs(&opened, PageRange::Before(4), 2).await, [2, 3]);
    assert_eq!(seqs(&opened, PageRange::Before(2), 9).await, [1]);
    assert!(seqs(&opened, PageRange::Before(1), 9).await.is_empty());
    assert!(seqs(&opened, PageRange::Before(0), 9).await.is_empty());
    assert_eq!(seqs(&opened, PageRange::Before(Seq::MAX), 1).await, [10]);
    opened.close().await;
}

pub(super) async fn pages_are_bounded_by_bytes(bench: &impl Bench) {
    let opened = bench.open().await;
    let start = opened.published_to().await.unwrap();
    let events = fill(&opened, channel(1), 9).await;
    let size = events[0].len();
    let page = async |range, bytes| {
        let limit = PageLimit { events: 9, bytes };
        opened.page(channel(1), range, limit).await.unwrap().events
    };
    assert_eq!(page(PageRange::After(0), size * 3).await, events[..3]);
    assert_eq!(page(PageRange::After(0), size * 4 - 1).await, events[..3]);
    assert_eq!(page(PageRange::Newest, size * 2).await, events[7..]);
    assert_eq!(page(PageRange::After(0), 0).await, events[..1]);
    let limit = PageLimit {
        events: 9,
        bytes: size * 2,
    };
    let outbox = opened.unpublished(start, limit).await;
    assert_eq!(outbox.unwrap().len(), 2);
    opened.close().await;
}

pub(super) async fn expired_events_leave_a_gap_and_the_head(bench: &impl Bench) {
    let opened = bench.open().await;
    fill(&opened, channel(1), KEPT_PER_CHANNEL + 10).await;
    bench.expire(&opened).await;
    let page = opened
        .page(channel(1), PageRange::After(0), PageLimit::events(1))
        .await
        .unwrap();
    assert_eq!(
        (page.head.first, page.head.head),
        (11, KEPT_PER_CHANNEL + 10)
    );
    assert_eq!(seqs(&opened, PageRange::After(0), 1).await, [11]);
    assert!(seqs(&opened, PageRange::Before(11), 5).await.is_empty());
    // Everything goes by age: the head stays, also over a restart.
    bench
        .clock()
        .advance(std::time::Duration::from_secs(365 * 24 * 3600));
    bench.expire(&opened).await;
    let gone = opened.heads(&[channel(1)]).await.unwrap().remove(0);
    assert_eq!(
        (gone.first, gone.head),
        (KEPT_PER_CHANNEL + 11, KEPT_PER_CHANNEL + 10)
    );
    assert_eq!(gone.epoch, page.head.epoch);
    opened.close().await;
    let opened = bench.open().await;
    assert_eq!(opened.heads(&[channel(1)]).await.unwrap(), [gone]);
    let next = store(&opened, text(channel(1), "next")).await.0;
    assert_eq!(next, KEPT_PER_CHANNEL + 11);
    opened.close().await;
}
