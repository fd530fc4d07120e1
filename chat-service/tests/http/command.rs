//! The command: what it prints and how it ends.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::StatusCode;
use test_kit::{Process, Program, ensure, eventually};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{Answer, LONG, channel, next_bytes};

fn program(folder: &tempfile::TempDir) -> Program {
    Program::of_workspace("chat-service")
        .env("HARK_LISTEN", "127.0.0.1:0")
        .env("HARK_OPERATIONS__LISTEN", "127.0.0.1:0")
        .env("HARK_STORE__DIR", folder.path().join("data"))
        .env("HARK_MQTT__URL", "mqtt://127.0.0.1:1")
}

#[tokio::test]
async fn prints_its_addresses_serves_and_ends_with_0() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = program(&folder).start().await;
    let client = reqwest::Client::new();
    let url = format!("{}/channels/{}/messages", process.url("chat"), channel());
    let answer = Answer::of(client.post(url).body("hello")).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    for (path, text) in [
        ("healthz", "alive"),
        ("readyz", "degraded"),
        ("metrics", "hark_chat_posts_total"),
    ] {
        let answer = Answer::of(client.get(format!("{}/{path}", process.url("ops")))).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.body.contains(text), "{answer:?}");
    }
    process.terminate();
    assert_eq!(
        process.wait(LONG).await.code(),
        Some(0),
        "{}",
        process.stderr()
    );
}

#[tokio::test]
async fn bad_usage_and_configuration_end_with_64_and_name_the_fault() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("chat.toml");
    std::fs::write(&file, "[store]\nmax_agee = \"1d\"\n").unwrap();
    let of_file = program(&folder).arg("--config").arg(&file);
    for (program, text) in [
        (of_file, "store.max_agee"),
        (program(&folder).env("HARK_LISTENN", "x"), "HARK_LISTENN"),
        (
            program(&folder).env("HARK_LIMITS__MESSAGE", "1GiB"),
            "limits.message",
        ),
        (
            program(&folder).env("HARK_LOG__LEVEL", "chat=loudly"),
            "log.level",
        ),
        (program(&folder).arg("--frobnicate"), "--frobnicate"),
    ] {
        let finished = program.run(LONG).await;
        assert_eq!(finished.status.code(), Some(64), "{finished:?}");
        assert!(finished.stderr.contains(text), "{finished:?}");
        assert_eq!(finished.stdout, "");
    }
}

/// Makes each fsync fail with EIO while the file that `FAIL_SYNC` names exists, like a disk that has lost a
/// write.
const FAILING_SYNC: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
static int call(const char *name, int file) {
    const char *broken = getenv("FAIL_SYNC");
    if (broken && access(broken, F_OK) == 0) { errno = EIO; return -1; }
    return ((int (*)(int))dlsym(RTLD_NEXT, name))(file);
}
int fsync(int file) { return call("fsync", file); }
int fdatasync(int file) { return call("fdatasync", file); }
"#;

fn failing_sync(folder: &Path) -> PathBuf {
    let (source, library) = (folder.join("sync.c"), folder.join("sync.so"));
    std::fs::write(&source, FAILING_SYNC).unwrap();
    let compiled = std::process::Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .status()
        .expect("cc, of the Debian package gcc, can be run");
    assert!(compiled.success());
    library
}

/// The system reports a lost write only once. Nothing after it may be confirmed.
#[tokio::test]
async fn failed_fsync_ends_the_process_and_the_next_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken");
    let mut process = program(&folder)
        .env("LD_PRELOAD", failing_sync(folder.path()))
        .env("FAIL_SYNC", &broken)
        .start()
        .await;
    let client = reqwest::Client::new();
    let channel = channel();
    let url = |process: &Process| format!("{}/channels/{channel}/messages", process.url("chat"));
    let answer = Answer::of(client.post(url(&process)).body("healthy")).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    std::fs::write(&broken, "").unwrap();
    let answer = Answer::of(client.post(url(&process)).body("lost")).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.body.contains("outcome-unknown"), "{answer:?}");
    // The next fsync would succeed.
    std::fs::remove_file(&broken).unwrap();
    if let Ok(answer) = client.post(url(&process)).body("after").send().await {
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(process.wait(LONG).await.code(), Some(1));
    assert!(process.stderr().contains("fsync failed"), "it says why");
    let process = program(&folder).start().await;
    let answer = Answer::of(client.post(url(&process)).body("again")).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
}

#[tokio::test]
async fn taken_port_and_folder_end_with_1_and_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let running = program(&folder).start().await;
    let same_folder = program(&folder).run(LONG).await;
    assert_eq!(same_folder.status.code(), Some(1));
    assert!(
        same_folder.stderr.contains("in use by another process"),
        "{same_folder:?}"
    );
    let other = tempfile::tempdir().unwrap();
    let same_port = program(&other)
        .env("HARK_LISTEN", running.socket("chat").to_string())
        .run(LONG)
        .await;
    assert_eq!(same_port.status.code(), Some(1));
    assert!(
        same_port.stderr.contains("another port: setting `listen`"),
        "{same_port:?}"
    );
}

#[tokio::test]
async fn printed_configuration_can_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let printed = program(&folder)
        .env("HARK_STORE__MAX_AGE", "7d")
        .env("HARK_MQTT__USERNAME", "hark")
        .env("HARK_MQTT__PASSWORD", "hunter2")
        .arg("--print-config")
        .run(LONG)
        .await;
    assert_eq!(printed.status.code(), Some(0));
    assert!(
        printed.stdout.contains("max_age = \"7d\""),
        "{}",
        printed.stdout
    );
    assert!(!printed.stdout.contains("hunter2"));
    let file = folder.path().join("printed.toml");
    std::fs::write(&file, &printed.stdout).unwrap();
    let again = Program::of_workspace("chat-service")
        .arg("--config")
        .arg(&file)
        .arg("--print-config");
    assert_eq!(again.run(LONG).await.stdout, printed.stdout);
}

#[tokio::test]
async fn second_signal_does_not_wait_for_a_request_that_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = program(&folder).start().await;
    let mut hanging = TcpStream::connect(process.socket("chat")).await.unwrap();
    let head = format!(
        "POST /channels/{}/messages HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n",
        channel()
    );
    hanging.write_all(head.as_bytes()).await.unwrap();
    // From here on, the service waits for the body.
    let answer = next_bytes(&mut hanging).await;
    assert_eq!(&answer, b"HTTP/1.1 100 Continue\r\n\r\n");
    process.terminate();
    // The first signal closes the port and waits for the request.
    eventually!(LONG, {
        ensure!(
            TcpStream::connect(process.socket("chat")).await.is_err(),
            "still open"
        );
        Ok(())
    });
    assert_eq!(process.ended(), None);
    process.terminate();
    assert_eq!(
        process.wait(Duration::from_secs(5)).await.code(),
        Some(0),
        "{}",
        process.stderr()
    );
}
