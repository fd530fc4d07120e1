//! `hark` as its users and their scripts meet it.

use std::time::Duration;

use system_tests::{Hark, Posted, hark, new_channel};
use test_kit::{Ledger, Listener, Program, Recording, ensure, eventually};
use tokio::task::JoinSet;

const SOON: Duration = Duration::from_secs(20);

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
async fn taken_port_is_told_with_the_option_that_changes_it() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().map(|address| (taken, address)).unwrap();
    let free = "127.0.0.1:0";
    let settings = [
        ("--chat", "chat_service.listen"),
        ("--sse", "broadcast_sse.listen"),
        ("--demo", "demo.listen"),
        ("--mqtt", "broker.listen"),
        ("--ops", "operations.listen"),
    ];
    let options = settings.map(|(option, _)| option);
    for (option, setting) in settings {
        let others = options.into_iter().filter(|other| *other != option);
        let others = others.flat_map(|other| [other, free]);
        let failed = hark(["up", "--data"])
            .arg(folder.path())
            .args(others)
            .args([option, &taken.1.to_string()])
            .run(SOON)
            .await;
        assert_eq!(failed.status.code(), Some(1), "{failed:?}");
        let says = format!(
            "the port is taken; stop what uses it (`ss -ltnp` shows it) or choose another port: \
             `{option} 127.0.0.1:PORT`, or setting `{setting}`"
        );
        assert!(failed.stderr.contains(&says), "{failed:?}");
    }
}

fn text_of(line: &str) -> String {
    let event: serde_json::Value =
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    event["text"].as_str().unwrap_or_default().to_owned()
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_usage_and_configuration_end_with_64() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("hark.toml");
    std::fs::write(&config, "nonsense = 1\n").unwrap();
    let config = config.to_str().unwrap();
    let (data, channel) = (folder.path().join("data"), new_channel());
    let data = data.to_str().unwrap();
    for arguments in [
        &["--nonsense"][..],
        &["nonsense"],
        &["post", &channel],
        &["up", "--data", data, "--chat", "nonsense"],
        &["up", "--data", data, "--config", config],
        &["listen", &channel, "--since", "x", "--last", "1"],
    ] {
        let finished = hark(arguments).run(SOON).await;
        assert_eq!(
            finished.status.code(),
            Some(64),
            "{arguments:?}: {finished:?}"
        );
        assert!(!finished.stderr.is_empty(), "{arguments:?}");
    }
    let port = hark(["up", "--data", data, "--chat", ":8123"]);
    let port = port.run(SOON).await;
    for example in ["127.0.0.1:8123", "0.0.0.0:8123"] {
        assert!(port.stderr.contains(example), "{port:?}");
    }
    let url = hark(["post", &channel, "hello", "--chat", ":8123"]);
    let url = url.run(SOON).await;
    assert_eq!(url.status.code(), Some(64), "{url:?}");
    assert!(url.stderr.contains("http://localhost:8123"), "{url:?}");
    let unknown = hark(["up", "--data", data, "--config", config])
        .run(SOON)
        .await;
    assert!(
        unknown.stderr.contains("nonsense"),
        "names the key: {unknown:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_start_ends_with_1_and_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let first = Hark::up(&folder.path().join("first")).await;
    for name in ["chat", "sse", "demo", "mqtt", "ops"] {
        let address = first.process().socket(name).to_string();
        let others = ["--chat", "--sse", "--demo", "--mqtt", "--ops"].into_iter();
        let others = others.filter(|option| *option != format!("--{name}"));
        let others = others.flat_map(|option| [option, "127.0.0.1:0"]);
        let second = hark(["up", "--data"])
            .arg(folder.path().join(name))
            .args(others);
        let second = second
            .arg(format!("--{name}"))
            .arg(&address)
            .run(SOON)
            .await;
        assert_eq!(second.status.code(), Some(1), "{name}: {second:?}");
        assert!(
            second.stderr.contains(&address),
            "names the address: {second:?}"
        );
    }

    let free = ["--chat", "--sse", "--demo", "--mqtt", "--ops"].into_iter();
    let free: Vec<&str> = free.flat_map(|option| [option, "127.0.0.1:0"]).collect();
    let locked = hark(["up", "--data"])
        .arg(folder.path().join("first"))
        .args(&free)
        .run(SOON)
        .await;
    assert_eq!(locked.status.code(), Some(1), "locked: {locked:?}");
    assert!(
        locked.stderr.contains("first"),
        "names the folder: {locked:?}"
    );

    // Not even root can make a folder within a file.
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let unwritable = hark(["up", "--data"])
        .arg(file.join("data"))
        .args(&free)
        .run(SOON)
        .await;
    assert_eq!(
        unwritable.status.code(),
        Some(1),
        "not writable: {unwritable:?}"
    );
    assert!(
        unwritable.stderr.contains("file/data"),
        "names the folder: {unwritable:?}"
    );

    let epoch = hark(["new-epoch", "--data"])
        .arg(folder.path().join("first"))
        .run(SOON)
        .await;
    assert_eq!(
        epoch.status.code(),
        Some(1),
        "new-epoch of a folder in use: {epoch:?}"
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
