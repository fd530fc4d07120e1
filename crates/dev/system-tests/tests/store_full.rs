//! A store that cannot take anything says so, and recovers by itself.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use system_tests::{Node, Sender, new_channel};
use test_kit::{Ledger, Program, Recording, ensure, eventually};

const SOON: Duration = Duration::from_secs(20);

/// Size of the disk that is filled up.
const DISK_MIB: u64 = 16;

/// Starts a program with a small disk of its own at `folder`: a tmpfs that only
/// this process sees and that goes away with it. Needs no privileges where user
/// namespaces are allowed.
fn small_disk(folder: &Path) -> Program {
    let unshare = Program::of_system("unshare", "util-linux").arg("--mount");
    let unshare = if rustix::process::geteuid().is_root() {
        unshare
    } else {
        unshare.arg("--map-root-user")
    };
    let script = format!(r#"mount -t tmpfs -o size={DISK_MIB}m none "$0" && exec "$@""#);
    unshare.args(["sh", "-c", &script]).arg(folder)
}

/// The folder as the process itself sees it.
fn seen_by(node: &Node, folder: &Path) -> PathBuf {
    let root = PathBuf::from(format!("/proc/{}/root", node.process().pid()));
    root.join(folder.strip_prefix("/").unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_a_503_until_there_is_room_again() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Node::broker().started().await;
    let store = folder.path().join("store");
    let chat = Node::chat_service(&broker.mqtt_url(), &store)
        .started_by(|program| program.started_by(small_disk(folder.path())))
        .started()
        .await;
    let sse = Node::broadcast_sse(&broker.mqtt_url(), &chat.url())
        .started()
        .await;
    let (sender, channel) = (Sender::to(chat.url()), new_channel());
    let readiness = format!("{}/readyz", chat.operations_url());
    let recording = Recording::ready(format!("{}/events?c={channel}", sse.url())).await;
    sender.post(&channel, "before").await;
    sender.wait_for_check(&readiness, 200, SOON).await;

    // Everything that is left of the disk.
    let filler = seen_by(&chat, folder.path()).join("filler");
    fill(&filler);
    // The log may still have room in pages that it already owns.
    let mut taken = 1;
    let refusal = eventually!(SOON, {
        let text = "x".repeat(20_000);
        let response = sender.try_post(&channel, &json!({ "text": text })).await?;
        let status = response.status();
        if status.is_success() {
            taken += 1;
            // What that freed or took, take as well.
            fill(&filler);
        }
        ensure!(!status.is_success(), "still {status}");
        Ok(response)
    });
    assert_eq!(refusal.status(), 503);
    assert!(
        refusal.headers().contains_key("retry-after"),
        "{:?}",
        refusal.headers()
    );
    assert_eq!(
        refusal.headers()["content-type"],
        "application/problem+json"
    );
    let unready = sender.wait_for_check(&readiness, 503, SOON).await;
    assert!(unready.contains("store"), "{unready}");
    // History reads do not need room.
    assert_eq!(sender.page(&channel, 0).await["head"], taken);

    std::fs::remove_file(&filler).unwrap();
    sender.wait_for_check(&readiness, 200, SOON).await;
    let after = sender.post(&channel, "after").await;
    assert_eq!(after.seq(), taken + 1, "what was refused was not stored");
    let count = usize::try_from(taken + 1).unwrap();
    recording.wait_for(SOON, "message", count).await;
    let ledger = Ledger::of(&recording.events()).unwrap();
    assert_eq!(ledger.delivered(&channel).len(), count);
    assert_eq!(recording.connects(), 1, "the stream stayed open");
}

/// Writes until the disk takes no more.
fn fill(path: &Path) {
    let mut file = File::options()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    for size in [64 * 1024, 4096, 1] {
        while file.write_all(&vec![0; size]).is_ok() {
            let written = file.metadata().unwrap().len();
            assert!(written <= DISK_MIB << 20, "this is not the small disk");
        }
    }
}
