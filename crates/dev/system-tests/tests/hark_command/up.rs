//! `hark up`: everything in one process, from a fresh folder to the last signal.

use std::time::Duration;

use system_tests::{Hark, Posted, hark, new_channel};
use test_kit::{Ledger, Listener, Program, Recording, ensure, eventually};
use tokio::task::JoinSet;

use crate::SOON;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_folder_becomes_a_working_chat_that_is_tried_with_the_printed_line() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("not yet there");
    let mut running = Hark::up(&data).await;
    let output = running.process().stdout();
    for (name, scheme) in [
        ("chat", "http"),
        ("sse", "http"),
        ("demo", "http"),
        ("mqtt", "mqtt"),
        ("ops", "http"),
    ] {
        let start = format!("{name} {scheme}://127.0.0.1:");
        assert!(
            output.lines().any(|line| line.starts_with(&start)),
            "no {start} in {output}"
        );
    }
    let sender = running.sender();
    for check in ["healthz", "readyz"] {
        sender
            .wait_for_check(&format!("{}/{check}", running.url("ops")), 200, SOON)
            .await;
    }
    let (_, metrics) = sender
        .check(&format!("{}/metrics", running.url("ops")))
        .await
        .unwrap();
    assert!(metrics.ends_with("# EOF\n"), "OpenMetrics text: {metrics}");
    let (status, page) = sender
        .check(&format!("{}/", running.url("demo")))
        .await
        .unwrap();
    assert!(status == 200 && page.contains("<html"), "{status}: {page}");

    // The line that it prints, as a user would paste it.
    let line: String = eventually!(SOON, {
        let output = running.process().stdout();
        let line = output.lines().find_map(|line| line.strip_prefix("try "));
        Ok(line
            .ok_or(format!("no line to try in {output}"))?
            .to_owned())
    });
    let channel = uuid_in(&line).unwrap_or_else(|| panic!("no channel in {line}"));
    let mut listener = Listener::new(running.stream(&[&channel]));
    listener.expect("ready", SOON).await;
    let curl = Program::of_system("curl", "curl");
    let path = format!("{}:/usr/bin:/bin", curl.path().parent().unwrap().display());
    let pasted = Program::of_system("sh", "dash")
        .arg("-c")
        .arg(&line)
        .env("PATH", path);
    let pasted = pasted.run(SOON).await;
    assert!(pasted.status.success(), "{pasted:?}");
    assert!(listener.expect("message", SOON).await.json()["text"].is_string());

    let (status, stderr) = running.stop().await;
    assert_eq!(status.code(), Some(0), "{stderr}");
}

fn uuid_in(line: &str) -> Option<String> {
    let words = line.split(|character: char| !(character.is_ascii_hexdigit() || character == '-'));
    words
        .filter_map(|word| uuid::Uuid::try_parse(word).ok())
        .map(|uuid| uuid.to_string())
        .next()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_ends_with_0_and_loses_nothing() {
    const SENDERS: usize = 8;
    const EACH: usize = 100;
    let folder = tempfile::tempdir().unwrap();
    let mut running = Hark::up(folder.path()).await;
    let channel = new_channel();
    let recording = Recording::ready(running.stream(&[&channel])).await;
    let mut senders = JoinSet::new();
    for _ in 0..SENDERS {
        let (sender, channel) = (running.sender(), channel.clone());
        senders.spawn(async move {
            let mut all = Vec::new();
            for number in 0..EACH {
                all.push(
                    sender
                        .post_until_taken(&channel, &format!("under load {number}"))
                        .await,
                );
            }
            all
        });
    }
    for part in 1..=2 {
        recording
            .wait_for(SOON, "message", part * SENDERS * EACH / 3)
            .await;
        let (status, stderr) = running.stop().await;
        assert_eq!(status.code(), Some(0), "{stderr}");
        running.start().await;
    }
    let mut answered: Vec<Posted> = senders.join_all().await.into_iter().flatten().collect();
    answered.sort_by_key(Posted::seq);
    recording
        .wait_for(Duration::from_secs(60), "message", SENDERS * EACH)
        .await;
    let ledger = Ledger::default().starting_after(&channel, 0);
    let ledger = ledger.with(&recording.events()).unwrap();
    let got: Vec<&str> = ledger
        .delivered(&channel)
        .iter()
        .map(|message| message.line.as_str())
        .collect();
    assert_eq!(
        got,
        answered
            .iter()
            .map(|posted| posted.line.as_str())
            .collect::<Vec<_>>()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigint_and_a_second_signal_end_it_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut running = Hark::up(folder.path()).await;
    let channel = new_channel();
    let recording = Recording::ready(running.stream(&[&channel])).await;
    running.process().signal(rustix::process::Signal::INT);
    // The stream ends, though its listener would have stayed.
    let (status, stderr) = running.stop().await;
    assert!(status.code().is_some(), "it ends by itself: {stderr}");
    running.start().await;
    running.sender().post(&channel, "back").await;
    eventually!(SOON, {
        ensure!(recording.count("message") == 1, "{:?}", recording.events());
        Ok(())
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opened_to_others_it_says_so_and_serves_them() {
    let folder = tempfile::tempdir().unwrap();
    let open = [
        "--chat",
        "0.0.0.0:0",
        "--sse",
        "0.0.0.0:0",
        "--demo",
        "0.0.0.0:0",
    ];
    let closed = ["--mqtt", "127.0.0.1:0", "--ops", "127.0.0.1:0"];
    let program = hark(["up", "--data"])
        .arg(folder.path())
        .args(open)
        .args(closed);
    let running = program.start().await;
    // Another pipe than that of `ready`.
    eventually!(SOON, {
        let stderr = running.stderr();
        ensure!(stderr.contains("open to others"), "{stderr}");
        Ok(())
    });

    // As a phone does it that has the page from this machine's address in the network.
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let port = |name| running.socket(name).port();
    let [chat, sse, demo] = ["chat", "sse", "demo"].map(port);
    let here = |port: u16, path: &str| format!("http://127.0.0.1:{port}{path}");
    let host = |port: u16| format!("192.0.2.1:{port}");
    let page = client
        .get(here(demo, "/"))
        .header("Host", host(demo))
        .send()
        .await
        .unwrap();
    assert_eq!(page.status(), 200);
    let policy = page.headers()["content-security-policy"]
        .to_str()
        .unwrap()
        .to_owned();
    for port in [chat, sse] {
        assert!(
            policy.contains(&format!("http://{}", host(port))),
            "{policy}"
        );
    }
    let url = here(chat, &format!("/channels/{}/messages", new_channel()));
    for (origin, status) in [
        (format!("http://{}", host(demo)), 201),
        ("http://evil.example".to_owned(), 403),
    ] {
        let post = client
            .post(&url)
            .header("Host", host(chat))
            .header("Origin", &origin);
        assert_eq!(
            post.body("hello").send().await.unwrap().status(),
            status,
            "{origin}"
        );
    }
}
