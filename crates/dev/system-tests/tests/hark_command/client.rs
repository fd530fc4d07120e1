//! `hark new`, `post`, `listen` and `health` beside one that runs.

use system_tests::{Hark, hark, new_channel};
use test_kit::Program;

use crate::SOON;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn post_listen_and_health_are_the_ends_of_the_same_chain() {
    let folder = tempfile::tempdir().unwrap();
    let mut running = Hark::up(folder.path()).await;
    let channel = new_channel();
    let (chat, sse, ops) = (running.url("chat"), running.url("sse"), running.url("ops"));
    let healthy = hark(["health", "--ops", &ops]).run(SOON).await;
    assert_eq!(healthy.status.code(), Some(0), "{healthy:?}");
    assert_eq!(healthy.stdout.trim(), format!("{ops}/ is alive"));

    for text in ["one", "two \u{1f600}"] {
        let posted = hark(["post", &channel, text, "--chat", &chat])
            .run(SOON)
            .await;
        assert_eq!(posted.status.code(), Some(0), "{posted:?}");
    }
    let mut listening = hark(["listen", &channel, "--last", "2", "--sse", &sse]).spawn();
    assert!(
        listening.wait_for_line(|line| line.contains("two")).await,
        "{}",
        listening.stderr()
    );
    // It resumes by itself, behind what it has printed.
    running.stop().await;
    running.start().await;
    running.sender().post(&channel, "three").await;
    let third = tokio::time::timeout(SOON, listening.wait_for_line(|line| line.contains("three")));
    assert_eq!(third.await, Ok(true), "{}", listening.stderr());
    let printed = listening.stdout();
    let texts: Vec<String> = printed.lines().map(text_of).collect();
    assert_eq!(texts, ["one", "two \u{1f600}", "three"], "{printed}");
    listening.terminate();
    listening.wait(SOON).await;

    let refused = hark(["post", "not-a-channel", "text", "--chat", &chat])
        .run(SOON)
        .await;
    assert!(
        !refused.status.success() && refused.stderr.contains("UUID"),
        "{refused:?}"
    );
    running.stop().await;
    let dead = hark(["health", "--ops", &ops]).run(SOON).await;
    assert_eq!(dead.status.code(), Some(1), "{dead:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_channel_comes_with_lines_that_work() {
    let folder = tempfile::tempdir().unwrap();
    let running = Hark::up(folder.path()).await;
    let chat = running.url("chat");
    let made = hark(["new", "--chat", &chat]).run(SOON).await;
    assert_eq!(made.status.code(), Some(0), "{made:?}");
    // Nothing else, so that a script can take it.
    let channel = made.stdout.trim_end();
    assert!(uuid::Uuid::try_parse(channel).is_ok(), "{made:?}");
    let url = format!("{chat}/channels/{channel}/messages");
    let line = format!("curl -d hello {url}");
    assert!(made.stderr.contains(&line), "{made:?}");
    let page = format!("http://localhost:8000/?c={channel}");
    assert!(made.stderr.contains(&page), "{made:?}");
    let curl = Program::of_system("curl", "curl");
    let curl = curl.args(["--fail-with-body", "-d", "hello", &url]);
    let posted = curl.run(SOON).await;
    assert!(posted.status.success(), "{posted:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standard_input_is_posted_and_an_empty_text_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let running = Hark::up(folder.path()).await;
    let (chat, channel) = (running.url("chat"), new_channel());
    let shell = |before: &str, text: &str, after: &str| {
        let line = format!("{before} \"$0\" post {channel} {text} --chat {chat} {after}");
        let shell = Program::of_system("sh", "dash").args(["-c", &line]);
        shell.arg(hark([""; 0]).path())
    };
    let piped = shell(r"printf 'two\nlines\n' |", "-", "").run(SOON).await;
    assert_eq!(piped.status.code(), Some(0), "{piped:?}");
    assert_eq!(text_of(&piped.stdout), "two\nlines");
    for (text, after) in [("''", ""), ("-", "</dev/null")] {
        let refused = shell("", text, after).run(SOON).await;
        assert_eq!(refused.status.code(), Some(64), "{refused:?}");
        assert!(refused.stderr.contains("the text is empty"), "{refused:?}");
    }
    let binary = shell(r"printf '\377' |", "-", "").run(SOON).await;
    assert_eq!(binary.status.code(), Some(64), "{binary:?}");
    let head = running.sender().post(&channel, "next").await;
    assert_eq!(head.seq(), 2, "nothing else was stored");
}

fn text_of(line: &str) -> String {
    let event: serde_json::Value =
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    event["text"].as_str().unwrap_or_default().to_owned()
}
