//! mosquitto as it is run in production: over TLS, with passwords and access rules; and what Hark
//! says when it is not set up for it.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use system_tests::{Load, Node, Sender, broker_is_well, broker_trouble, new_channel};
use test_kit::{Certificates, Finished, Listener, Mosquitto, Program, Recording};

const SOON: Duration = Duration::from_secs(20);

/// As this user of a guarded mosquitto.
fn guarded(node: Node, broker: &Mosquitto, user: &str) -> Node {
    let authority = broker.certificates().authority().to_owned();
    node.env("HARK_MQTT__CA_FILE", authority)
        .env("HARK_MQTT__USERNAME", user)
        .env("HARK_MQTT__PASSWORD", Mosquitto::PASSWORD)
}

/// Runs `mosquitto_pub` or `mosquitto_sub` against a guarded mosquitto.
async fn client(program: &str, broker: &Mosquitto, arguments: &[&str]) -> Finished {
    let port = broker.address().port().to_string();
    let program = Program::of_system(program, "mosquitto-clients")
        .args(["-h", "localhost", "-p", &port, "--cafile"])
        .arg(broker.certificates().authority())
        .args(arguments);
    program.run(SOON).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_with_passwords_and_rules_it_carries_everything_and_nobody_else_takes_part() {
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Mosquitto::start_guarded().await;
    let chat = Node::chat_service(&broker.url(), &folder.path().join("store"));
    let chat = guarded(chat, &broker, "chat-service").started().await;
    let sse = |mode: &str| {
        let node = Node::broadcast_sse(&broker.url(), &chat.url());
        guarded(node, &broker, "broadcast-sse").env("HARK_SUBSCRIBE__MODE", mode)
    };
    let nodes = [
        sse("wildcard").started().await,
        sse("per-channel").started().await,
    ];
    let sender = Sender::to(chat.url());
    let next = AtomicUsize::new(0);
    let load = Load::start(&sender, |channel| {
        let node = &nodes[next.fetch_add(1, Relaxed) % nodes.len()];
        format!("{}/events?c={channel}", node.url())
    })
    .await;
    load.wait_for_posts(Load::POSTS / 2).await;
    broker.restart().await;
    load.verify().await;
    for node in nodes.iter().chain([&chat]) {
        broker_is_well(node).await;
    }

    // A stranger gets no connection; whoever may only read is not heard.
    let channel = new_channel();
    let topic = format!("chat/{channel}");
    let stranger = client("mosquitto_sub", &broker, &["-t", "chat/+", "-W", "5"]).await;
    assert!(!stranger.status.success(), "{stranger:?}");
    assert!(
        stranger.stderr.to_lowercase().contains("not authori"),
        "{stranger:?}"
    );
    let mut listeners: Vec<_> = nodes
        .iter()
        .map(|node| Listener::new(format!("{}/events?c={channel}", node.url())))
        .collect();
    for listener in &mut listeners {
        listener.expect("ready", SOON).await;
    }
    let epoch = sender.post(&channel, "one").await.event["epoch"].clone();
    let forged = format!(
        r#"{{"channel":"{channel}","epoch":{epoch},"seq":2,"id":"00000000-0000-4000-8000-000000000001","at":"2026-11-21T09:00:00.000Z","type":"message","text":"forged"}}"#
    );
    let login = ["-u", "broadcast-sse", "-P", Mosquitto::PASSWORD];
    let arguments = [&login[..], &["-q", "1", "-t", &topic, "-m", &forged]].concat();
    let published = client("mosquitto_pub", &broker, &arguments).await;
    assert!(
        published.status.success(),
        "dropped in silence: {published:?}"
    );
    sender.post(&channel, "two").await;
    for listener in &mut listeners {
        for text in ["one", "two"] {
            let heard = listener.expect("message", SOON).await;
            assert_eq!(heard.json()["text"], text);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_connection_is_told_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start_guarded().await;
    let others = Certificates::write(folder.path());
    let history = "http://127.0.0.1:9";
    let node = || {
        guarded(
            Node::broadcast_sse(&broker.url(), history),
            &broker,
            "broadcast-sse",
        )
    };

    let wrong_authority = node().env("HARK_MQTT__CA_FILE", others.authority());
    let path = others.authority().to_str().unwrap();
    let wrong_authority = wrong_authority.started().await;
    broker_trouble(&wrong_authority, &["not trusted", "`mqtt.ca_file`", path]).await;

    let of_the_system = node().env("HARK_MQTT__CA_FILE", "").started().await;
    broker_trouble(&of_the_system, &["not trusted", "`mqtt.ca_file`"]).await;

    let wrong_password = node().env("HARK_MQTT__PASSWORD", "x").started().await;
    broker_trouble(&wrong_password, &["refused the log-in", "`mqtt.password`"]).await;

    let plain = format!("mqtt://{}", broker.address());
    let without_tls = node()
        .env("HARK_MQTT__URL", plain)
        .env("HARK_MQTT__CA_FILE", "");
    broker_trouble(&without_tls.started().await, &["mqtts://"]).await;

    for program in ["broadcast-sse", "chat-service"] {
        let refused = Program::of_workspace(program)
            .env("HARK_LISTEN", "127.0.0.1:0")
            .env("HARK_OPERATIONS__LISTEN", "127.0.0.1:0")
            .env("HARK_MQTT__URL", broker.url())
            .env("HARK_MQTT__CA_FILE", folder.path().join("nowhere.pem"))
            .in_folder(folder.path())
            .run(SOON)
            .await;
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert!(refused.stderr.contains("nowhere.pem"), "{refused:?}");
        assert!(refused.stderr.contains("mqtt.ca_file"), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_packet_limit_below_the_message_limit_is_told_and_what_is_smaller_passes() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start_with("max_packet_size 20000\n").await;
    let chat = Node::chat_service(&broker.url(), &folder.path().join("store"))
        .started()
        .await;
    let sse = Node::broadcast_sse(&broker.url(), &chat.url())
        .started()
        .await;
    broker_trouble(&chat, &["max_packet_size", "`limits.message`"]).await;
    broker_is_well(&sse).await;
    let (sender, channel) = (Sender::to(chat.url()), new_channel());
    let recording = Recording::ready(format!("{}/events?c={channel}", sse.url())).await;
    sender.post(&channel, "small").await;
    recording.wait_for(SOON, "message", 1).await;
    sender.post(&channel, &"x".repeat(40_000)).await;
    sender.post(&channel, "small again").await;
    recording.wait_for(SOON, "message", 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_that_drop_silently_are_noticed_and_the_store_is_asked_until_they_are_changed() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("acl");
    std::fs::write(&rules, "topic write chat/+\n").unwrap();
    let broker = Mosquitto::start_with(&format!("acl_file {}\n", rules.display())).await;
    let chat = Node::chat_service(&broker.url(), &folder.path().join("store"))
        .started()
        .await;
    let sse = |mode: &str| {
        let node = Node::broadcast_sse(&broker.url(), &chat.url());
        node.env("HARK_SUBSCRIBE__MODE", mode)
    };
    let nodes = [
        sse("wildcard").started().await,
        sse("per-channel").started().await,
    ];
    let (sender, channel) = (Sender::to(chat.url()), new_channel());
    let mut recordings = Vec::new();
    for node in &nodes {
        recordings.push(Recording::ready(format!("{}/events?c={channel}", node.url())).await);
    }
    broker_trouble(&nodes[0], &["chat/+", "passes nothing on", "access rules"]).await;
    broker_trouble(&nodes[1], &["chat/heartbeat", "passes nothing on"]).await;
    broker_is_well(&chat).await;
    for count in 1..=3 {
        sender.post(&channel, "by way of the store").await;
        for recording in &recordings {
            recording
                .wait_for(Duration::from_secs(5), "message", count)
                .await;
        }
    }

    std::fs::write(&rules, "topic readwrite chat/+\n").unwrap();
    reload(&broker);
    for node in &nodes {
        broker_is_well(node).await;
    }
    sender.post(&channel, "by way of the broker").await;
    for recording in &recordings {
        recording.wait_for(SOON, "message", 4).await;
    }
}

/// Has mosquitto read its files again.
fn reload(broker: &Mosquitto) {
    let pid = Pid::from_raw(broker.pid().cast_signed()).unwrap();
    kill_process(pid, Signal::HUP).unwrap();
}
