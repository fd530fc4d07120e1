//! Events that are not what was stored.

use chat_model::{Damaged, EventHead};
use chat_store::{PageLimit, PageRange, Store};

use crate::posts::{channel, post, text};
use crate::support::Database;

#[tokio::test]
async fn changed_and_lost_events_are_named_and_passed_over() {
    let database = Database::new().await;
    let store = database.open().await;
    let start = store.published_to().await.unwrap();
    for number in 1..=6 {
        post(&store, text(1, format!("number {number}")))
            .await
            .unwrap();
    }
    // One is changed, one is gone, one is from before there were checksums.
    database
        .run(
            "UPDATE hark.log SET event = convert_to(replace(convert_from(event, 'UTF8'),
                'number 2', 'number 7'), 'UTF8') WHERE seq = 2;
             DELETE FROM hark.log WHERE seq = 3;
             UPDATE hark.log SET sum = NULL WHERE seq = 5;",
        )
        .await;
    for (range, limit) in [(PageRange::After(0), 50), (PageRange::Newest, 6)] {
        let page = store.page(channel(1), range, PageLimit::events(limit));
        let page = page.await.unwrap();
        let seqs = page.events.iter();
        let seqs: Vec<_> = seqs.map(|e| EventHead::parse(e).unwrap().seq).collect();
        assert_eq!(seqs, [1, 4, 5, 6]);
        assert_eq!(page.damaged, [Damaged { from: 2, to: 3 }]);
    }
    // A page that its size cuts short damages nothing.
    let small = PageLimit {
        events: 50,
        bytes: 1,
    };
    let page = store
        .page(channel(1), PageRange::After(3), small)
        .await
        .unwrap();
    assert_eq!((page.events.len(), page.damaged.len()), (1, 0));
    let waiting = store.unpublished(start, PageLimit::MAX).await.unwrap();
    let seqs: Vec<_> = waiting
        .iter()
        .map(|entry| EventHead::parse(&entry.event).unwrap().seq)
        .collect();
    assert_eq!(seqs, [1, 4, 5, 6]);
    assert!(store.damage().is_some());
    store.close().await;
}
