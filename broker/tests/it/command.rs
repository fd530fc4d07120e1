//! The `broker` command as scripts use it.

use test_kit::{Process, Program, mqtt_publish};

use crate::client::SOON;

fn command() -> Program {
    Program::of_workspace("broker")
        .env("HARK_LISTEN", "127.0.0.1:0")
        .env("HARK_OPERATIONS__LISTEN", "127.0.0.1:0")
}

async fn ready() -> Process {
    command().start().await
}

#[tokio::test]
async fn it_serves_until_sigterm_and_then_exits_with_0() {
    let mut process = ready().await;
    mqtt_publish(process.socket("mqtt"), "chat/x", b"hello").await;
    let http = reqwest::Client::new();
    let get = async |path: &str| {
        let url = format!("{}{path}", process.url("ops"));
        http.get(url).send().await.unwrap().text().await.unwrap()
    };
    assert!(get("/readyz").await.contains(r#""broker":{"status":"ok"}"#));
    assert!(get("/metrics").await.contains("hark_broker_connections "));
    process.terminate();
    assert_eq!(process.wait(SOON).await.code(), Some(0));
}

#[tokio::test]
async fn a_taken_port_is_exit_status_1_with_a_sentence() {
    let first = ready().await;
    let taken = first.socket("mqtt").to_string();
    let mut second = command().env("HARK_LISTEN", &taken).spawn();
    assert_eq!(second.wait(SOON).await.code(), Some(1));
    assert!(
        second.stderr().contains("port is taken"),
        "{}",
        second.stderr()
    );
}

#[tokio::test]
async fn bad_usage_and_configuration_are_exit_status_64() {
    let mut usage = command().arg("--no-such-thing").spawn();
    assert_eq!(usage.wait(SOON).await.code(), Some(64));
    let mut open = command().env("HARK_LISTEN", "0.0.0.0:0").spawn();
    assert_eq!(open.wait(SOON).await.code(), Some(64));
    assert!(open.stderr().contains("open = true"), "{}", open.stderr());
    let mut unknown = command().env("HARK_NO_SUCH_KEY", "1").spawn();
    assert_eq!(unknown.wait(SOON).await.code(), Some(64));
    assert!(
        unknown.stderr().contains("no_such_key"),
        "{}",
        unknown.stderr()
    );
}

#[tokio::test]
async fn print_config_shows_every_key_and_starts_nothing() {
    let mut process = command().arg("--print-config").spawn();
    assert_eq!(process.wait(SOON).await.code(), Some(0));
    for key in [
        "listen = \"127.0.0.1:0\"",
        "max_filters = 500",
        "[operations]",
        "[log]",
    ] {
        assert!(process.stdout().contains(key), "{}", process.stdout());
    }
}
