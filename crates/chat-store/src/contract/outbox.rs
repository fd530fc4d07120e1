use std::sync::Arc;
use std::time::Duration;

use chat_model::EventHead;
use clock::Clock;
use futures_util::future::join_all;

use super::{Bench, channel, fill, store, text};
use crate::{PageLimit, Position, Store, Unpublished};

async fn outbox(store: &Arc<dyn Store>, after: Position) -> Vec<Unpublished> {
    let mut all: Vec<Unpublished> = Vec::new();
    loop {
        let from = all.last().map_or(after, |last| last.position);
        let page = store.unpublished(from, PageLimit::events(7)).await.unwrap();
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

pub(super) async fn outbox_has_every_event_in_order(bench: &impl Bench) {
    let opened = bench.open().await;
    let start = opened.published_to().await.unwrap();
    let posts = (0..90_u128).map(|number| opened.append(text(channel(number % 3), "x")));
    join_all(posts).await;
    let all = outbox(&opened, start).await;
    assert_eq!(all.len(), 90);
    assert!(all.is_sorted_by(|a, b| a.position < b.position));
    let now = bench.clock().now().as_millis().unsigned_abs();
    let mut last = [0; 3];
    for entry in &all {
        let head = EventHead::parse(&entry.event).unwrap();
        assert_eq!(head.channel, entry.channel);
        let last = &mut last[usize::try_from(head.channel.uuid().as_u128()).unwrap()];
        assert_eq!(head.seq, *last + 1, "within a channel in order");
        *last = head.seq;
        assert_eq!(entry.committed_at, now);
    }
    let rest = outbox(&opened, all[59].position).await;
    assert_eq!(rest, all[60..]);
    opened.close().await;
}

pub(super) async fn watermark_survives_reopening(bench: &impl Bench) {
    let opened = bench.open().await;
    let start = opened.published_to().await.unwrap();
    fill(&opened, channel(1), 5).await;
    let all = outbox(&opened, start).await;
    assert_eq!(all.len(), 5);
    opened.mark_published(all[3].position);
    opened.mark_published(all[1].position);
    assert_eq!(opened.published_to().await.unwrap(), all[3].position);
    opened.close().await;
    let opened = bench.open().await;
    let mark = opened.published_to().await.unwrap();
    assert_eq!(mark, all[3].position);
    assert_eq!(outbox(&opened, mark).await, all[4..]);
    assert!(opened.stats().unpublished > 0, "what was left counts");
    let last = all[4].position;
    opened.mark_published(last);
    assert_eq!(opened.stats().unpublished, 0);
    opened.close().await;
}

pub(super) async fn position_is_never_used_twice(bench: &impl Bench) {
    let opened = bench.open().await;
    let start = opened.published_to().await.unwrap();
    fill(&opened, channel(1), 5).await;
    let last = outbox(&opened, start).await[4].position;
    opened.mark_published(last);
    bench.clock().advance(Duration::from_secs(365 * 24 * 3600));
    bench.expire(&opened).await;
    assert!(outbox(&opened, start).await.is_empty());
    opened.close().await;
    let opened = bench.open().await;
    store(&opened, text(channel(2), "after all else expired")).await;
    let mark = opened.published_to().await.unwrap();
    assert_eq!(mark, last);
    assert_eq!(outbox(&opened, mark).await.len(), 1);
    opened.close().await;
}

pub(super) async fn oldest_unpublished_is_found(bench: &impl Bench) {
    let opened = bench.open().await;
    let start = opened.published_to().await.unwrap();
    assert_eq!(opened.oldest_unpublished().await.unwrap(), None);
    fill(&opened, channel(1), 1).await;
    bench.age(&opened, FIVE).await;
    fill(&opened, channel(2), 1).await;
    bench.age(&opened, FIVE).await;
    oldest_becomes(&opened, "10 s", |age| age >= Some(FIVE * 2)).await;
    let all = outbox(&opened, start).await;
    opened.mark_published(all[0].position);
    let five = |age| (Some(FIVE)..Some(FIVE * 2)).contains(&age);
    oldest_becomes(&opened, "5 s", five).await;
    opened.mark_published(all[1].position);
    oldest_becomes(&opened, "none", |age| age.is_none()).await;
    opened.close().await;
}

const FIVE: Duration = Duration::from_secs(5);

/// What was just published may count as not published for a while.
async fn oldest_becomes(
    store: &Arc<dyn Store>,
    expected: &str,
    is_it: impl Fn(Option<Duration>) -> bool,
) {
    let started = std::time::Instant::now();
    loop {
        let oldest = store.oldest_unpublished().await.unwrap();
        if is_it(oldest) {
            return;
        }
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "{oldest:?} instead of {expected}"
        );
    }
}

pub(super) async fn follower_sees_commits_in_order(bench: &impl Bench) {
    let opened = bench.open().await;
    let start = opened.published_to().await.unwrap();
    fill(&opened, channel(1), 3).await;
    let mut commits = opened.follow(100);
    fill(&opened, channel(1), 10).await;
    let mut followed = Vec::new();
    while followed.len() < 10 {
        followed.extend(commits.recv().await.expect("the store is open"));
    }
    assert_eq!(followed, outbox(&opened, start).await[3..]);
    opened.close().await;
    assert!(commits.recv().await.is_none(), "a closed store ends it");
}

pub(super) async fn slow_follower_is_let_go(bench: &impl Bench) {
    let opened = bench.open().await;
    let mut commits = opened.follow(2);
    fill(&opened, channel(1), 5).await;
    let first = commits.recv().await.unwrap();
    let second = commits.recv().await.unwrap();
    assert!(commits.recv().await.is_none(), "it missed the third");
    let mut commits = opened.follow(2);
    let after = second[0].position;
    let missed = outbox(&opened, after).await;
    assert_eq!(first.len() + second.len() + missed.len(), 5);
    fill(&opened, channel(1), 1).await;
    assert!(commits.recv().await.unwrap()[0].position > missed[2].position);
    opened.close().await;
}
