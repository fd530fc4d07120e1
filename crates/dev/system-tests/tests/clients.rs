//! Clients of event streams that others wrote, as a newcomer uses them outside a browser: each gets
//! what is posted, in order and once, also over a restart of the server, and nothing that it would
//! stumble over.

use std::path::{Path, PathBuf};
use std::time::Duration;

use system_tests::{Hark, new_channel};
use test_kit::{Process, Program, ensure, eventually};

const SOON: Duration = Duration::from_secs(60);

/// Each prints a line of JSON for every event that its library hands out, and ends at an event whose
/// data is no JSON. The last takes only names that it is told.
fn clients() -> [(&'static str, Program); 5] {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
    let step = |path: PathBuf| Program::of_step(path, "clients");
    let python = |script: &str| {
        let python = step(folder.join("python/venv/bin/python"));
        python.arg(folder.join("python").join(script))
    };
    step(folder.join("node/node_modules/eventsource"));
    let node = Program::of_system("node", "nodejs");
    [
        ("httpx-sse", python("listen_httpx.py")),
        ("sseclient-py", python("listen_sseclient.py")),
        ("go-sse", step(folder.join("go/bin/gosse"))),
        ("r3labs/sse", step(folder.join("go/bin/r3labs"))),
        ("eventsource", node.arg(folder.join("node/listen.mjs"))),
    ]
}

/// What it printed, as pairs of name and event.
fn heard(client: &Process) -> Vec<(String, serde_json::Value)> {
    let lines = client.stdout();
    let parsed = lines.lines().map(|line| {
        let mut event: serde_json::Value = serde_json::from_str(line).unwrap();
        let name = event["event"].as_str().unwrap().to_owned();
        (name, event["data"].take())
    });
    parsed.collect()
}

fn texts(client: &Process) -> Vec<String> {
    let messages = heard(client).into_iter().filter(|(name, _)| {
        // Two of the libraries leave the name empty where browsers say `message`.
        name.is_empty() || name == "message"
    });
    let texts = messages.map(|(_, event)| event["text"].as_str().unwrap().to_owned());
    texts.collect()
}

async fn all_have(clients: &mut [(&'static str, Process)], wanted: &[&str]) {
    for (name, client) in clients {
        eventually!(SOON, {
            let ended = client.ended();
            ensure!(ended.is_none(), "{name}: {ended:?}: {}", client.stderr());
            let texts = texts(client);
            ensure!(texts == wanted, "{name}: {texts:?}");
            Ok(())
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_newcomers_listen_with_hears_everything_once_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut hark = Hark::up(folder.path()).await;
    let (channel, sender) = (new_channel(), hark.sender());
    let url = hark.stream(&[&channel]);
    let started = clients().map(|(name, program)| (name, program.arg(&url).spawn()));
    let mut clients = Vec::from(started);
    for (name, client) in &mut clients {
        let ready = client.wait_for_line(|line| line.contains("\"ready\""));
        let ready = tokio::time::timeout(SOON, ready).await;
        assert_eq!(ready, Ok(true), "{name}: {}", client.stderr());
    }
    sender.post(&channel, "before").await;
    all_have(&mut clients, &["before"]).await;

    // The last words of the streams, then nobody who answers, then what came meanwhile.
    hark.stop().await;
    hark.start().await;
    let sender = hark.sender();
    sender.post(&channel, "at once").await;
    all_have(&mut clients, &["before", "at once"]).await;
    sender.post(&channel, "later").await;
    all_have(&mut clients, &["before", "at once", "later"]).await;

    for (name, client) in &mut clients {
        for (event, _) in heard(client) {
            let known = ["", "message", "ready", "ping"].contains(&event.as_str());
            assert!(known, "{name} got {event}");
        }
        client.kill().await;
    }
}
