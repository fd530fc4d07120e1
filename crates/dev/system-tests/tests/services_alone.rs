//! The three binaries and the page's own server, each alone, and with a production broker.

use std::time::Duration;

use system_tests::{Chain, Node, Sender, new_channel};
use test_kit::{Ledger, Listener, Mosquitto, Program, Recording, ensure, eventually};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_served_alone_may_use_the_services() {
    let chain = Chain::start().await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../client-demo/run.sh");
    drop(Program::of_system("python3", "python3"));
    let mut page = Program::of_system("sh", "dash")
        .arg(script)
        .arg("127.0.0.1:0")
        .spawn();
    let printed =
        tokio::time::timeout(SOON, page.wait_for_line(|line| line.starts_with("demo "))).await;
    assert_eq!(printed, Ok(true), "{}", page.stderr());
    let demo = page.url("demo");
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for file in ["", "chat-client.js", "config.json"] {
        let answer = client.get(format!("{demo}/{file}")).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{file}");
        let policy = answer.headers()["content-security-policy"]
            .to_str()
            .unwrap();
        assert!(!policy.contains("unsafe-inline"), "{policy}");
    }

    // What a browser does for the page: preflight, post and listen, each with its origin.
    let (sender, channel) = (chain.sender(), new_channel());
    let url = sender.messages_url(&channel);
    let preflight = client
        .request(reqwest::Method::OPTIONS, &url)
        .header("Origin", &demo);
    let preflight = preflight.header("Access-Control-Request-Method", "POST");
    let preflight = preflight
        .header("Access-Control-Request-Headers", "content-type")
        .send()
        .await
        .unwrap();
    assert!(preflight.status().is_success(), "{preflight:?}");
    let allowed =
        |answer: &reqwest::Response| answer.headers().get("access-control-allow-origin").cloned();
    let origin = Some(demo.parse().unwrap());
    let any = Some("*".parse().unwrap());
    assert!(
        [&origin, &any].contains(&&allowed(&preflight)),
        "{preflight:?}"
    );
    let mut listener = Listener::new(chain.stream(&[&channel]));
    listener.expect("ready", SOON).await;
    let post = client
        .post(&url)
        .header("Origin", &demo)
        .json(&serde_json::json!({ "text": "from the page" }));
    let answer = post.send().await.unwrap();
    assert_eq!(answer.status(), 201);
    assert!([&origin, &any].contains(&&allowed(&answer)), "{answer:?}");
    let stream = client
        .get(chain.stream(&[&channel]))
        .header("Origin", &demo)
        .send()
        .await
        .unwrap();
    assert!([&origin, &any].contains(&&allowed(&stream)), "{stream:?}");
    // Errors as well, or the page could not read them.
    let refused = client
        .post(&url)
        .header("Origin", &demo)
        .header("Content-Type", "image/png")
        .body("x");
    let refused = refused.send().await.unwrap();
    assert_eq!(refused.status(), 415);
    assert!([&origin, &any].contains(&&allowed(&refused)), "{refused:?}");
    assert_eq!(
        listener.expect("message", SOON).await.json()["text"],
        "from the page"
    );
    page.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mosquitto_serves_per_channel_subscriptions_through_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Mosquitto::start().await;
    let chat = Node::chat_service(&broker.url(), folder.path())
        .started()
        .await;
    let per_channel = |node: Node| node.env("HARK_SUBSCRIBE__MODE", "per-channel");
    let first = per_channel(Node::broadcast_sse(&broker.url(), &chat.url()))
        .started()
        .await;
    let second = per_channel(Node::broadcast_sse(&broker.url(), &chat.url()))
        .started()
        .await;
    let sender = Sender::to(chat.url());
    let channels: Vec<String> = (0..40).map(|_| new_channel()).collect();
    let mut recordings = Vec::new();
    for channel in &channels {
        for node in [&first, &second] {
            recordings.push((
                channel,
                Recording::ready(format!("{}/events?c={channel}", node.url())).await,
            ));
        }
    }
    for round in 0..3 {
        for channel in &channels {
            assert_eq!(sender.post(channel, "with mosquitto").await.status, 201);
        }
        for (_, recording) in &recordings {
            recording.wait_for(SOON, "message", 2 * round + 1).await;
        }
        broker.kill().await;
        for channel in &channels {
            sender.post(channel, "without").await;
        }
        broker.restart().await;
        sender.wait_for_broker().await;
        for (_, recording) in &recordings {
            recording.wait_for(SOON, "message", 2 * round + 2).await;
        }
    }
    for (channel, recording) in &recordings {
        let ledger = Ledger::of(&recording.events()).unwrap();
        assert_eq!(
            (ledger.delivered(channel).len(), ledger.gaps(channel).len()),
            (6, 0)
        );
        assert_eq!(recording.connects(), 1, "the stream stayed open");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_binary_says_what_it_is_set_to_and_refuses_what_it_does_not_know() {
    for binary in ["chat-service", "broadcast-sse", "broker"] {
        let program = Program::of_workspace(binary);
        let printed = program.clone().arg("--print-config").run(SOON).await;
        assert_eq!(printed.status.code(), Some(0), "{printed:?}");
        assert!(printed.stdout.contains("listen"), "{printed:?}");
        let unknown = program.clone().env("HARK_NONSENSE", "1").run(SOON).await;
        assert_eq!(unknown.status.code(), Some(64), "{unknown:?}");
        assert!(
            unknown.stderr.to_lowercase().contains("nonsense"),
            "{unknown:?}"
        );
        let missing = program
            .clone()
            .args(["--config", "/no/such/file"])
            .run(SOON)
            .await;
        assert_eq!(missing.status.code(), Some(64), "{missing:?}");
        assert!(missing.stderr.contains("/no/such/file"), "{missing:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_names_the_broker_that_is_away_and_stays_green_without_it() {
    let mut chain = Chain::start().await;
    let sender = chain.sender();
    wait_for_broker_check(&chain.chat, "ok").await;
    wait_for_broker_check(&chain.sse, "ok").await;
    chain.broker.kill().await;
    // Both do their work without it, a little slower: a restart would help nobody.
    wait_for_broker_check(&chain.chat, "degraded").await;
    wait_for_broker_check(&chain.sse, "degraded").await;
    for node in [&chain.chat, &chain.sse] {
        let health = format!("{}/healthz", node.operations_url());
        sender.wait_for_check(&health, 200, SOON).await;
    }
    chain.broker.start().await;
    wait_for_broker_check(&chain.chat, "ok").await;
    wait_for_broker_check(&chain.sse, "ok").await;
}

/// Waits until the readiness of this node says this of its broker, being ready all the time.
async fn wait_for_broker_check(node: &Node, expected: &str) {
    let url = format!("{}/readyz", node.operations_url());
    eventually!(SOON, {
        let (status, body) = Sender::to(node.url()).check(&url).await?;
        assert_eq!(status, 200, "{body}");
        let readiness: serde_json::Value = serde_json::from_str(&body)?;
        let checks = readiness["checks"].as_object().ok_or("no checks")?;
        let broker = checks.iter().find(|(name, _)| name.contains("broker"));
        let (_, broker) = broker.ok_or("no check of the broker")?;
        ensure!(broker["status"] == expected, "{body}");
        Ok(())
    });
}
