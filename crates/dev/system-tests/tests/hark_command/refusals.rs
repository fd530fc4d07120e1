//! What `hark` does not do, and how it says so.

use system_tests::{Hark, hark, new_channel};

use crate::SOON;

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
