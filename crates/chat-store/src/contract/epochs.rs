use std::time::Duration;

use chat_model::{EventHead, Seq};
use clock::{Clock, Timestamp};

use super::{Bench, channel, fill, store, text};
use crate::{PageLimit, PageRange};

pub(super) async fn new_epoch_starts_after_the_kept_head(bench: &impl Bench) {
    let opened = bench.open().await;
    let kept = fill(&opened, channel(1), 5).await;
    fill(&opened, channel(2), 3).await;
    let old = opened.heads(&[channel(1)]).await.unwrap().remove(0);
    bench.clock().advance(Duration::from_secs(1));
    assert_eq!(opened.new_epoch().await.unwrap(), Some(2));
    let new = opened.heads(&[channel(1)]).await.unwrap().remove(0);
    assert!(new.epoch > old.epoch);
    assert_eq!((new.head, new.first), (5, 1));
    let starts: Vec<(_, Seq)> = new.epochs.iter().map(|e| (e.epoch, e.from)).collect();
    assert_eq!(starts, [(old.epoch, 1), (new.epoch, 6)]);
    // The log of a channel that the writer had in its memory goes on in the new epoch.
    let (seq, event) = store(&opened, text(channel(1), "six")).await;
    assert_eq!(
        (seq, EventHead::parse(&event).unwrap().epoch),
        (6, new.epoch)
    );
    let page = opened
        .page(channel(1), PageRange::After(0), PageLimit::MAX)
        .await
        .unwrap();
    assert_eq!(page.events[..5], kept, "what was kept keeps its bytes");
    opened.close().await;
    let opened = bench.open().await;
    let again = opened.heads(&[channel(1)]).await.unwrap().remove(0);
    assert_eq!((again.epochs, again.head), (new.epochs, 6));
    opened.close().await;
}

pub(super) async fn epochs_increase_even_if_the_clock_goes_back(bench: &impl Bench) {
    let opened = bench.open().await;
    fill(&opened, channel(1), 1).await;
    let start = bench.clock().now().as_millis();
    let mut last = opened.heads(&[channel(1)]).await.unwrap()[0].epoch;
    for hours in 1..4 {
        bench
            .clock()
            .set(Timestamp::from_millis(start - hours * 3_600_000));
        opened.new_epoch().await.unwrap();
        let epoch = opened.heads(&[channel(1)]).await.unwrap()[0].epoch;
        assert!(epoch > last, "after {hours}");
        last = epoch;
    }
    // A log that begins now is of no older epoch than those handed out.
    fill(&opened, channel(2), 1).await;
    assert!(opened.heads(&[channel(2)]).await.unwrap()[0].epoch >= last);
    opened.close().await;
}

pub(super) async fn list_of_epochs_is_bounded(bench: &impl Bench) {
    let opened = bench.open().await;
    fill(&opened, channel(1), 1).await;
    for _ in 0..100 {
        bench.clock().advance(Duration::from_secs(1));
        opened.new_epoch().await.unwrap();
    }
    let head = opened.heads(&[channel(1)]).await.unwrap().remove(0);
    assert!(
        (2..=64).contains(&head.epochs.len()),
        "{}",
        head.epochs.len()
    );
    assert!(head.epochs.is_sorted_by(|a, b| a.epoch < b.epoch));
    assert_eq!(head.epochs.last().unwrap().epoch, head.epoch);
    opened.close().await;
}
