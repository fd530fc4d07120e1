//! What operators do to a store from the command line: whether it is told as it is, and whether it
//! is whole when they are interrupted.

use std::path::Path;
use std::time::{Duration, Instant};

use rand::RngExt;
use serde_json::json;
use system_tests::{Hark, Node, Sender, hark, new_channel, seeded_random};
use test_kit::Finished;
use tokio::time::sleep;

const SOON: Duration = Duration::from_secs(20);

async fn run(command: &str, data: &Path) -> Finished {
    hark([command, "--data"]).arg(data).run(SOON).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_tells_a_good_a_damaged_and_a_missing_store() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let channel = new_channel();
    let mut running = Hark::up(&data).await;
    running.sender().post_many(&channel, 5).await;
    running
        .sender()
        .post(&channel, "let it stay as it is")
        .await;
    let beside = run("check", &data).await;
    assert_eq!(beside.status.code(), Some(0), "{beside:?}");
    running.stop().await;

    let good = run("check", &data).await;
    assert_eq!(good.status.code(), Some(0), "{good:?}");
    let words = "1 channels, 6 messages are sound, 0 are damaged";
    assert_eq!((good.stdout.as_str(), good.stderr.as_str()), (words, ""));

    // One letter, which leaves good JSON.
    let file = data.join("store.sqlite3");
    let mut bytes = std::fs::read(&file).unwrap();
    let words = b"let it stay";
    let at = bytes.windows(words.len()).position(|part| part == words);
    bytes[at.expect("the message is in the file")] = b'b';
    std::fs::write(&file, bytes).unwrap();
    let damaged = run("check", &data).await;
    assert_eq!(damaged.status.code(), Some(1), "{damaged:?}");
    let named =
        format!("{channel}: message 6 is damaged\n1 channels, 5 messages are sound, 1 are damaged");
    assert_eq!(damaged.stdout, named);
    assert!(damaged.stderr.contains("hark restore"), "{damaged:?}");

    let missing = run("check", &folder.path().join("elsewhere")).await;
    assert_eq!(missing.status.code(), Some(1), "{missing:?}");
    assert_eq!(missing.stdout, "");
    assert!(missing.stderr.contains("store.sqlite3"), "{missing:?}");
}

/// Where the log of this channel stands in a store: its epoch and head.
async fn log(broker: &Node, data: &Path, channel: &str) -> (String, u64) {
    let chat = Node::chat_service(&broker.mqtt_url(), data).started().await;
    let page = Sender::to(chat.url()).page(channel, 0).await;
    let epoch = page["epoch"].as_str().unwrap().to_owned();
    (epoch, page["head"].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_is_killed_at_any_time_leaves_no_store_of_the_old_epoch() {
    const LARGE: u64 = 100;
    const KILLS: usize = 8;
    let folder = tempfile::tempdir().unwrap();
    let (old, copy) = (folder.path().join("old"), folder.path().join("copy"));
    let channel = new_channel();
    let broker = Node::broker().started().await;
    let chat = Node::chat_service(&broker.mqtt_url(), &old).started().await;
    let sender = Sender::to(chat.url());
    // Some MiB, so that there is time to be killed in.
    let text = "x".repeat(60_000);
    for _ in 0..LARGE {
        sender.post_json(&channel, &json!({ "text": text })).await;
    }
    let made = hark(["backup", "--data"])
        .arg(&old)
        .arg(&copy)
        .run(SOON)
        .await;
    assert_eq!(made.status.code(), Some(0), "{made:?}");
    drop(chat);
    let (before, head) = log(&broker, &old, &channel).await;
    assert_eq!(head, LARGE);

    let restore = |data: &Path| hark(["restore", "--data"]).arg(data).arg(&copy);
    let started = Instant::now();
    let whole = restore(&folder.path().join("whole")).run(SOON).await;
    assert_eq!(whole.status.code(), Some(0), "{whole:?}");
    let took = started.elapsed();
    let mut random = seeded_random();
    let mut left = 0;
    for number in 0..KILLS {
        let data = folder.path().join(number.to_string());
        let mut killed = restore(&data).spawn();
        sleep(took.mul_f64(random.random_range(0.0..1.2))).await;
        killed.kill().await;
        if data.join("store.sqlite3").exists() {
            left += 1;
        } else {
            let again = restore(&data).run(SOON).await;
            assert_eq!(again.status.code(), Some(0), "{again:?}");
        }
        let (epoch, head) = log(&broker, &data, &channel).await;
        assert!(epoch > before, "kill {number} left the old epoch");
        assert_eq!(head, LARGE, "kill {number}");
    }
    println!("{left} of {KILLS} kills came after the end");
}
