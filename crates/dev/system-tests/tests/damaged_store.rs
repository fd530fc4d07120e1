//! A store in which a disk has changed something, behind all the rest.

use std::time::Duration;

use rusqlite::Connection;
use system_tests::{Hark, new_channel};
use test_kit::{Listener, Recording};
use uuid::Uuid;

const SOON: Duration = Duration::from_secs(20);

/// broadcast-sse asks for the heads of many channels at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channel_whose_head_is_damaged_keeps_no_other_from_being_ready() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (good, lost) = (new_channel(), new_channel());
    let mut hark = Hark::up(&data).await;
    for channel in [&good, &lost] {
        hark.sender().post_many(channel, 3).await;
    }
    hark.stop().await;
    let database = Connection::open(data.join("store.sqlite3")).unwrap();
    let bytes = Uuid::parse_str(&lost).unwrap().into_bytes();
    let damage = "UPDATE epochs SET epoch = -1
        WHERE channel_no = (SELECT channel_no FROM channels WHERE uuid = ?1)";
    assert_eq!(database.execute(damage, [bytes]).unwrap(), 1);
    drop(database);
    hark.start().await;

    let never = Recording::start(Listener::new(hark.stream(&[&lost])));
    let url = format!("{}&last=3", hark.stream(&[&good]));
    let recording = Recording::start(Listener::new(url));
    recording.wait_for(SOON, "ready", 1).await;
    hark.sender().post_many(&good, 2).await;
    recording.wait_for(SOON, "message", 5).await;
    // A stream of both is told, and goes on with the good one.
    let both = Recording::start(Listener::new(hark.stream(&[&lost, &good])));
    both.wait_for(SOON, "gap", 1).await;
    both.wait_for(SOON, "ready", 1).await;
    hark.sender().post(&good, "to both").await;
    both.wait_for(SOON, "message", 1).await;
    let ready = never.events().into_iter().filter(|e| e.event == "ready");
    assert_eq!(ready.count(), 0, "nobody knows where it stands");
}
