//! The example configurations of clustered brokers, read by them, with the services on top.

use std::net::SocketAddr;
use std::path::Path;

use system_tests::{Node, Sender, broker_is_well, deploy, example, new_channel};
use test_kit::{
    BrokerCluster, Certificates, Listener, Process, Program, ensure, eventually, free_address,
};

const SOON: std::time::Duration = std::time::Duration::from_secs(60);

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// chat-service and broadcast-sse carry events over this broker; one that broadcast-sse's user
/// publishes is not taken.
async fn carries_what_chat_service_publishes(
    url: &str,
    authority: &Path,
    passwords: [&str; 2],
    qos: &str,
) {
    let folder = tempfile::tempdir().unwrap();
    let logged_in = |node: Node, user: &str, password: &str| {
        node.env("HARK_MQTT__CA_FILE", authority)
            .env("HARK_MQTT__USERNAME", user)
            .env("HARK_MQTT__PASSWORD", password)
    };
    let chat = Node::chat_service(url, &folder.path().join("store"));
    let chat = logged_in(chat, "chat-service", passwords[0])
        .started()
        .await;
    let mut nodes = Vec::new();
    for (mode, qos) in [("wildcard", "1"), ("per-channel", qos)] {
        let node = Node::broadcast_sse(url, &chat.url())
            .env("HARK_SUBSCRIBE__MODE", mode)
            .env("HARK_MQTT__SUBSCRIBE_QOS", qos);
        let node = logged_in(node, "broadcast-sse", passwords[1]);
        nodes.push(node.started().await);
    }
    for node in nodes.iter().chain([&chat]) {
        broker_is_well(node).await;
    }
    let (sender, channel) = (Sender::to(chat.url()), new_channel());
    let mut listeners: Vec<_> = nodes
        .iter()
        .map(|node| Listener::new(format!("{}/events?c={channel}", node.url())))
        .collect();
    for listener in &mut listeners {
        listener.expect("ready", SOON).await;
    }
    let first = sender.post(&channel, "one").await;
    let forged = first.line.replace("\"seq\":1", "\"seq\":2");
    let (host, port) = url.rsplit_once(':').unwrap();
    let published = Program::of_system("mosquitto_pub", "mosquitto-clients")
        .args(["-h", host.rsplit_once('/').unwrap().1, "-p", port])
        .arg("--cafile")
        .arg(authority)
        .args(["-u", "broadcast-sse", "-P", passwords[1], "-q", "1"])
        .args(["-t", &format!("chat/{channel}"), "-m", &forged])
        .run(SOON)
        .await;
    let second = sender.post(&channel, "two").await;
    for listener in &mut listeners {
        for posted in [&first, &second] {
            let heard = listener.expect("message", SOON).await;
            assert_eq!(heard.data, posted.line, "{published:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_lets_only_chat_service_publish() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = Certificates::write(folder.path());
    let port = free_address().port();
    let settings = example(
        "examples/rabbitmq.conf",
        &[
            // The test waits until one can connect without TLS.
            ("\nmqtt.listeners.tcp = none", ""),
            (
                "ssl.default = 8883",
                &format!("ssl.default = 127.0.0.1:{port}"),
            ),
            ("/etc/rabbitmq/hark.pem", text(certificates.server())),
            ("/etc/rabbitmq/hark.key", text(certificates.key())),
            (
                "/etc/rabbitmq/authority.pem",
                text(certificates.authority()),
            ),
            ("rabbit@broker1", "hark0@localhost"),
            ("rabbit@broker2", "hark0@localhost"),
            ("rabbit@broker3", "hark0@localhost"),
        ],
    );
    let broker = BrokerCluster::rabbitmq_with(1, &settings).await;
    let passwords = [
        ("CHAT_SERVICE_PASSWORD", "one"),
        ("BROADCAST_SSE_PASSWORD", "two"),
    ];
    let script = deploy("examples/rabbitmq-users.sh");
    broker.run_script(&script, &passwords).await;
    let url = format!("mqtts://localhost:{port}");
    let authority = certificates.authority();
    carries_what_chat_service_publishes(&url, authority, ["one", "two"], "1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_lets_only_chat_service_publish() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = Certificates::write(folder.path());
    let routes: Vec<u16> = (0..3).map(|_| free_address().port()).collect();
    let mut nodes: Vec<Process> = Vec::new();
    let mut urls = Vec::new();
    for number in 0..3 {
        let (port, route) = (free_address().port(), routes[number]);
        let name = format!("broker{}", number + 1);
        let store = folder.path().join(&name);
        let mut replace = vec![
            (
                "server_name: broker1".to_owned(),
                format!("server_name: {name}"),
            ),
            ("127.0.0.1:4222".to_owned(), free_address().to_string()),
            ("/var/lib/nats".to_owned(), text(&store).to_owned()),
            ("0.0.0.0:8883".to_owned(), format!("127.0.0.1:{port}")),
            ("0.0.0.0:6222".to_owned(), format!("127.0.0.1:{route}")),
            (
                "/etc/nats/hark.pem".to_owned(),
                text(certificates.server()).to_owned(),
            ),
            (
                "/etc/nats/hark.key".to_owned(),
                text(certificates.key()).to_owned(),
            ),
        ];
        for (other, route) in routes.iter().enumerate() {
            let from = format!("broker{}:6222", other + 1);
            replace.push((from, format!("127.0.0.1:{route}")));
        }
        let replace: Vec<_> = replace
            .iter()
            .map(|(from, to)| (from.as_str(), to.as_str()))
            .collect();
        let config = folder.path().join(format!("{name}.conf"));
        std::fs::write(&config, example("examples/nats.conf", &replace)).unwrap();
        let program = Program::of_system("nats-server", "nats-server").arg("-c");
        nodes.push(program.arg(&config).spawn());
        urls.push(SocketAddr::from(([127, 0, 0, 1], port)));
    }
    for (node, address) in nodes.iter_mut().zip(&urls) {
        eventually!(SOON, {
            let ended = node.ended();
            ensure!(ended.is_none(), "{ended:?}: {}", node.stderr());
            tokio::net::TcpStream::connect(address).await?;
            Ok(())
        });
    }
    let urls: Vec<_> = urls
        .iter()
        .map(|address| format!("mqtts://{address}"))
        .collect();
    let passwords = ["replace-me-1", "replace-me-2"];
    let authority = certificates.authority();
    carries_what_chat_service_publishes(&urls.join(","), authority, passwords, "0").await;
}
