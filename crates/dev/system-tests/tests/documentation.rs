//! The documentation keeps its word: its examples run, and nothing that can be watched is left out.

use std::path::Path;
use std::time::Duration;

use system_tests::{Hark, new_channel};
use test_kit::{Listener, Program};

const SOON: Duration = Duration::from_secs(20);

fn docs(file: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(3);
    let path = root.expect("the workspace's root").join("docs").join(file);
    std::fs::read_to_string(path).unwrap()
}

/// The code blocks of one language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let begin = format!("```{language}\n");
    let blocks = text.split(&begin).skip(1);
    let blocks = blocks.map(|rest| rest.split("\n```").next().unwrap_or_default().to_owned());
    blocks.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_shell_line_of_the_protocol_is_answered_with_success() {
    let folder = tempfile::tempdir().unwrap();
    let hark = Hark::up(folder.path()).await;
    let curl = Program::of_system("curl", "curl");
    let mut ran = 0;
    for block in blocks(&docs("protocol.md"), "sh") {
        let block = block
            .replace("http://localhost:8080", &hark.url("chat"))
            .replace("http://localhost:8081", &hark.url("sse"))
            .replace("\\\n", " ");
        for line in block.lines().filter(|line| !line.trim().is_empty()) {
            let line = line.replacen("curl ", "exec \"$0\" --fail-with-body --silent ", 1);
            let shell = Program::of_system("sh", "dash").args(["-c", &line]);
            let shell = shell.arg(curl.path());
            if line.contains(" -N ") {
                // A stream has no end.
                let mut stream = shell.spawn();
                let ready = stream.wait_for_line(|line| line == "event: ready");
                let ready = tokio::time::timeout(SOON, ready).await;
                assert_eq!(ready, Ok(true), "{line}: {}", stream.stdout());
            } else {
                let finished = shell.run(SOON).await;
                assert!(finished.status.success(), "{line}: {finished:?}");
                assert!(
                    finished.stdout.contains("c3743620-"),
                    "{line}: {finished:?}"
                );
            }
            ran += 1;
        }
    }
    assert!(ran >= 7, "only {ran} lines found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_configuration_of_one_server_is_understood() {
    let folder = tempfile::tempdir().unwrap();
    let settings = &blocks(&docs("one-server.md"), "toml")[0];
    let file = folder.path().join("hark.toml");
    std::fs::write(&file, settings).unwrap();
    let shown = system_tests::hark(["--print-config", "--config"]).arg(&file);
    let shown = shown.run(SOON).await;
    assert!(shown.status.success(), "{shown:?}");
    assert!(shown.stdout.contains("chat.example.org"), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_protocols_post_in_javascript_posts() {
    let folder = tempfile::tempdir().unwrap();
    let hark = Hark::up(folder.path()).await;
    let channel = new_channel();
    let mut listener = Listener::new(hark.stream(&[&channel]));
    listener.expect("ready", SOON).await;
    let blocks = blocks(&docs("protocol.md"), "js");
    let post = blocks.iter().find(|block| block.contains("function post("));
    let script = folder.path().join("post.mjs");
    let call = format!("await post('{}', '{channel}', 'posted');", hark.url("chat"));
    std::fs::write(&script, format!("{}\n{call}\n", post.unwrap())).unwrap();
    let ran = Program::of_system("node", "nodejs").arg(&script);
    let ran = ran.run(SOON).await;
    assert!(ran.status.success(), "{ran:?}");
    assert_eq!(
        listener.expect("message", SOON).await.json()["text"],
        "posted"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_and_every_check_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let hark = Hark::up(folder.path()).await;
    let (operations, sender) = (docs("operations.md"), hark.sender());
    let metrics = sender.check(&format!("{}/metrics", hark.url("ops"))).await;
    let (_, metrics) = metrics.unwrap();
    let types = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "));
    let mut seen = 0;
    for line in types {
        let (name, kind) = line.split_once(' ').unwrap();
        let name = match kind {
            "counter" => format!("{name}_total"),
            _ => name.to_owned(),
        };
        let explained = [format!("`{name}`"), format!("`{name}{{")];
        assert!(
            explained.iter().any(|form| operations.contains(form)),
            "docs/operations.md does not explain {name}"
        );
        seen += 1;
    }
    assert!(seen > 30, "only {seen} metrics in {metrics}");
    let readiness = sender.check(&format!("{}/readyz", hark.url("ops"))).await;
    let readiness: serde_json::Value = serde_json::from_str(&readiness.unwrap().1).unwrap();
    for check in readiness["checks"].as_object().unwrap().keys() {
        let (service, name) = check.split_once('.').unwrap_or(("", check));
        let row = format!("| `{name}` | {service} |");
        assert!(operations.contains(&row), "no word on {check}");
    }
}
