//! A node that runs out of file descriptors serves those whom it has.

use std::time::Duration;

use system_tests::{Chain, Hark, new_channel};
use test_kit::{
    Listener, Program, Recording, ensure, eventually, mqtt_publish, open_without_reading,
};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_beyond_the_limit_wait_and_cost_the_others_nothing() {
    let shell = Program::of_system("sh", "dash").args(["-c", r#"ulimit -n 100 && exec "$0""#]);
    let chain = Chain::start_with(|sse| sse.started_by(|program| program.started_by(shell))).await;
    let (sender, channel) = (chain.sender(), new_channel());
    let recording = Recording::ready(chain.stream(&[&channel])).await;
    let path = format!("/events?c={channel}");
    let mut crowd = Vec::new();
    for _ in 0..200 {
        crowd.push(open_without_reading(chain.sse.address(), &path).await);
    }
    for number in 1..=20 {
        sender.post(&channel, "in the crowd").await;
        recording
            .wait_for(Duration::from_secs(5), "message", number)
            .await;
    }
    crowd.clear();
    let mut next = Listener::new(chain.stream(&[&channel]));
    next.expect("ready", SOON).await;
    sender.post(&channel, "there is room again").await;
    next.expect("message", SOON).await;
    assert_eq!(recording.connects(), 1);
}

/// What `hark` has in the next test.
const DESCRIPTORS: usize = 150;

/// CONNECT without a client id (MQTT 3.1.1 §3.1), and a subscription (§3.8): nothing that gives way.
const SUBSCRIBED: &[u8] =
    b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00\x82\x06\x00\x01\x00\x01t\x00";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hark_outlives_its_last_descriptor() {
    let folder = tempfile::tempdir().unwrap();
    let limit = [
        "-c".to_owned(),
        format!(r#"ulimit -n {DESCRIPTORS} && exec "$0" "$@""#),
    ];
    let shell = Program::of_system("sh", "dash").args(limit);
    let mut hark = Hark::up_with(folder.path(), |program| {
        let program = program.env("HARK_BROADCAST_SSE__HUB__PING", "1s");
        program.started_by(shell)
    })
    .await;
    let (channel, broker) = (new_channel(), hark.process().socket("mqtt"));
    let recording = Recording::ready(hark.stream(&[&channel])).await;
    let sender = hark.sender();
    sender.post(&channel, "before").await;
    recording.wait_for(SOON, "message", 1).await;
    // All that are left, and some that wait for one.
    let mut crowd = Vec::new();
    for _ in 0..DESCRIPTORS + 50 {
        let mut client = TcpStream::connect(broker).await.unwrap();
        client.write_all(SUBSCRIBED).await.unwrap();
        crowd.push(client);
    }
    let descriptors = format!("/proc/{}/fd", hark.process().pid());
    eventually!(SOON, {
        let used = std::fs::read_dir(&descriptors)?.count();
        ensure!(used >= DESCRIPTORS, "{used} descriptors");
        Ok(())
    });
    // Longer than three probes of the broker take.
    let pings = recording.count("ping");
    recording.wait_for(SOON, "ping", pings + 16).await;
    drop(crowd);
    // A broker that had taken missing descriptors for a fault of its router would begin anew now.
    let readyz = format!("{}/readyz", hark.url("ops"));
    let (_status, checks) = sender.check(&readyz).await.unwrap();
    let well = r#""broker.broker":{"status":"ok"}"#;
    assert!(checks.contains(well), "{checks}");
    mqtt_publish(broker, "t", b"!").await;
    sender.post(&channel, "after").await;
    recording.wait_for(SOON, "message", 2).await;
    let mut next = Listener::new(hark.stream(&[&channel]));
    next.expect("ready", SOON).await;
    assert_eq!(recording.connects(), 1);
    let (status, log) = hark.stop().await;
    assert!(status.success(), "{status}\n{log}");
}
