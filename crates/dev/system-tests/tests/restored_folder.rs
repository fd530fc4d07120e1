//! A store that was put back: what was lost is said, and nothing is said twice.

use std::path::Path;
use std::time::Duration;

use system_tests::{Hark, Posted, new_channel};
use test_kit::{Gap, Ledger, Listener, Recording};

const SOON: Duration = Duration::from_secs(20);

/// Copies the data of a `hark` that goes on meanwhile.
async fn back_up(data: &Path, copy: &Path) {
    let made = system_tests::hark(["backup", "--data"])
        .arg(data)
        .arg(copy)
        .run(SOON)
        .await;
    assert_eq!(made.status.code(), Some(0), "{made:?}");
}

/// Stops `hark`, puts `copy` in the place of its data and starts it.
async fn put_back(hark: &mut Hark, data: &Path, copy: &Path) {
    hark.stop().await;
    let restore = system_tests::hark(["restore", "--data"])
        .arg(data)
        .arg(copy);
    let refused = restore.run(SOON).await;
    assert_eq!(
        refused.status.code(),
        Some(1),
        "over what is there: {refused:?}"
    );
    std::fs::remove_dir_all(data).unwrap();
    let restored = restore.run(SOON).await;
    assert_eq!(restored.status.code(), Some(0), "{restored:?}");
    hark.start().await;
}

/// A stream that begins at this cursor, read until it has this many messages.
async fn resumed(hark: &Hark, channel: &str, cursor: &str, messages: usize) -> Ledger {
    let listener = Listener::new(hark.stream(&[channel])).resuming_from(cursor);
    let recording = Recording::start(listener);
    recording.wait_for(SOON, "message", messages).await;
    recording.wait_for(SOON, "ready", 1).await;
    Ledger::of(&recording.events()).unwrap()
}

fn delivered<'l>(ledger: &'l Ledger, channel: &str) -> Vec<&'l str> {
    ledger
        .delivered(channel)
        .iter()
        .map(|message| message.line.as_str())
        .collect()
}

fn lines(posts: &[Posted]) -> Vec<&str> {
    posts.iter().map(|post| post.line.as_str()).collect()
}

/// Everything behind the cut, up to what this listener had seen.
fn lost(seen: usize) -> Gap {
    Gap {
        from: Some(21),
        to: Some(seen as u64),
        reason: "epoch".to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_put_back_twice_from_the_same_copy() {
    let folder = tempfile::tempdir().unwrap();
    let (data, copy) = (folder.path().join("data"), folder.path().join("copy"));
    let channel = new_channel();

    let mut hark = Hark::up(&data).await;
    let kept = hark.sender().post_many(&channel, 20).await;
    back_up(&data, &copy).await;
    let url = format!("{}&last=20", hark.stream(&[&channel]));
    let recording = Recording::start(Listener::new(url));
    recording.wait_for(SOON, "ready", 1).await;
    let gone = hark.sender().post_many(&channel, 100).await;
    recording.wait_for(SOON, "message", 120).await;
    // The cursors of listeners that stopped after each message.
    let messages = recording
        .events()
        .into_iter()
        .filter(|event| event.event == "message");
    let cursors: Vec<String> = messages.map(|event| event.id.unwrap()).collect();

    let mut posted = [lines(&kept), lines(&gone)].concat();
    let mut epochs = vec![kept[0].event["epoch"].clone()];
    let mut rounds = Vec::new();
    for round in 1..=2 {
        // The second time, the new messages of the first are lost.
        put_back(&mut hark, &data, &copy).await;
        let new = hark.sender().post_many(&channel, 100).await;
        assert_eq!(
            (new[0].seq(), new[99].seq()),
            (21, 120),
            "it goes on behind what was kept"
        );
        let epoch = new[0].event["epoch"].clone();
        assert!(!epochs.contains(&epoch), "{epoch} is one of {epochs:?}");
        epochs.push(epoch);

        // Who was before the cut, or at it, continues without a gap.
        for seen in [10, 20] {
            let before = resumed(&hark, &channel, &cursors[seen - 1], 120 - seen).await;
            assert_eq!(before.gaps(&channel), []);
            let expected = [&lines(&kept)[seen..], &lines(&new)].concat();
            assert_eq!(delivered(&before, &channel), expected);
        }
        // Beyond it the stream says what is gone, from the cut to the cursor.
        for seen in [21, 70, 120] {
            let beyond = resumed(&hark, &channel, &cursors[seen - 1], 100).await;
            assert_eq!(beyond.gaps(&channel), [lost(seen)]);
            assert_eq!(delivered(&beyond, &channel), lines(&new));
        }
        recording.wait_for(SOON, "message", 120 + 100 * round).await;
        rounds.push(new);
    }

    // The one who listened all the time came back to each of them.
    posted.extend(rounds.iter().flat_map(|new| lines(new)));
    let all = Ledger::of(&recording.events()).unwrap();
    assert_eq!(all.gaps(&channel), [lost(120), lost(120)]);
    assert_eq!(delivered(&all, &channel), posted);
}
