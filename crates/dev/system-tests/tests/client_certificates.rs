//! chat-service takes connections only from clients with a certificate, and broadcast-sse has one.

use std::path::Path;
use std::time::Duration;

use system_tests::{Node, Sender, new_channel};
use test_kit::{Certificates, Ledger, Program, Recording};

const SOON: Duration = Duration::from_secs(20);

/// curl, which trusts the authority.
fn curl(known: &Certificates, arguments: &[&str]) -> Program {
    Program::of_system("curl", "curl")
        .args(["--silent", "--show-error", "--noproxy", "*"])
        .args(["--max-time", "10", "--cacert"])
        .arg(known.authority())
        .args(arguments)
}

fn showing(curl: Program, cert: &Path, key: &Path) -> Program {
    curl.arg("--cert").arg(cert).arg("--key").arg(key)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_asked_with_a_certificate_and_strangers_get_nothing() {
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let known = Certificates::write(folders[0].path());
    let others = Certificates::write(folders[1].path());
    let mut broker = Node::broker().started().await;
    let chat = Node::chat_service(&broker.mqtt_url(), folders[2].path())
        .env("HARK_TLS__CERT", known.server())
        .env("HARK_TLS__KEY", known.key())
        .env("HARK_TLS__CLIENT_CA", known.authority())
        .started()
        .await;
    let url = format!("https://localhost:{}", chat.address().port());
    let mqtt = broker.mqtt_url();
    let node = || Node::broadcast_sse(&mqtt, &url).env("HARK_HISTORY__CA_FILE", known.authority());
    let sse = node()
        .env("HARK_HISTORY__CERT", known.client())
        .env("HARK_HISTORY__KEY", known.client_key())
        .started()
        .await;
    let stranger = node().started().await;

    let channel = new_channel();
    let messages = format!("{url}/channels/{channel}/messages");
    let post = || {
        showing(
            curl(&known, &["-d", "hello", &messages]),
            known.client(),
            known.client_key(),
        )
    };
    let stream = format!("{}/events?c={channel}", sse.url());
    let recording = Recording::ready(&stream).await;
    for _ in 0..3 {
        let posted = post().run(SOON).await;
        assert!(
            posted.status.success() && posted.stdout.contains("\"seq\""),
            "{posted:?}"
        );
    }
    recording.wait_for(SOON, "message", 3).await;
    // Without a broker everything comes from history.
    broker.kill().await;
    for _ in 0..3 {
        assert!(post().run(SOON).await.status.success());
    }
    recording.wait_for(SOON, "message", 6).await;
    let second = node()
        .env("HARK_HISTORY__CERT", known.client())
        .env("HARK_HISTORY__KEY", known.client_key())
        .started()
        .await;
    let replayed = Recording::ready(format!("{}/events?c={channel}&last=6", second.url())).await;
    replayed.wait_for(SOON, "message", 6).await;
    for recording in [&recording, &replayed] {
        let ledger = Ledger::of(&recording.events()).unwrap();
        assert_eq!(
            (
                ledger.delivered(&channel).len(),
                ledger.gaps(&channel).len()
            ),
            (6, 0)
        );
    }

    // Nobody else reads or posts: without TLS, without a certificate, with that of another authority, with
    // one that is a server's.
    let plain = messages.replace("https:", "http:");
    let refused = [
        curl(&known, &[&plain]),
        curl(&known, &[&messages]),
        curl(&known, &["-d", "x", &messages]),
        showing(
            curl(&known, &[&messages]),
            others.client(),
            others.client_key(),
        ),
        showing(curl(&known, &[&messages]), known.server(), known.key()),
    ];
    for refused in refused {
        let refused = refused.run(SOON).await;
        assert!(
            !refused.status.success() && refused.stdout.is_empty(),
            "{refused:?}"
        );
    }
    let readiness = format!("{}/readyz", stranger.operations_url());
    let readiness = curl(&known, &[&readiness]).run(SOON).await;
    assert!(
        readiness.stdout.contains("chat-service does not answer"),
        "{readiness:?}"
    );
    // The operators' listener asks for nothing, and nothing of it is told at the usual level.
    let health = format!("{}/healthz", chat.operations_url());
    Sender::to(chat.url())
        .wait_for_check(&health, 200, SOON)
        .await;
    assert!(
        !chat.process().stderr().contains("certificate"),
        "{}",
        chat.process().stderr()
    );
}
