//! Reverse proxies as `deploy/examples` has them, in front of the services: streams pass them as they
//! are, and an `EventSource` that gives up on any status but 200 survives every restart behind them.

use std::net::SocketAddr;
use std::time::Duration;

use system_tests::{Chain, Front, example, hark, new_channel};
use test_kit::{Ledger, Listener, Process, Program, Recording, ensure, eventually, free_address};
use tokio::net::TcpStream;

const SOON: Duration = Duration::from_secs(30);
/// Behind each proxy.
const LISTENERS: usize = 5;
const POSTS: usize = 30;

/// The example for nginx, without TLS.
async fn nginx(chain: &Chain) -> Front {
    let site = example(
        "examples/nginx.conf",
        &[
            ("listen 443 ssl http2;", "listen {front};"),
            ("server_name chat.example.org;", "server_name _;"),
            ("ssl_certificate ", "# "),
            ("ssl_certificate_key ", "# "),
            (
                "server 127.0.0.1:8080;",
                &format!("server {};", chain.chat.address()),
            ),
            (
                "server 127.0.0.1:8081;",
                &format!("server {};", chain.sse.address()),
            ),
        ],
    );
    Front::with(&main(&site)).await
}

/// Another nginx in front of that one, which serves it under a path, and buffers and speaks HTTP/1.0
/// by default, as nginx does.
async fn nginx_under_a_path(inner: SocketAddr) -> Front {
    let site = format!(
        "server {{
            listen {{front}};
            large_client_header_buffers 4 32k;
            location /chat/ {{
                proxy_pass http://{inner}/;
                proxy_set_header Host $host;
                proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            }}
        }}"
    );
    Front::with(&main(&site)).await
}

fn main(site: &str) -> String {
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {{folder}}/{kind};\n"))
        .concat();
    // One process: killing it leaves no workers behind.
    format!(
        "daemon off;\nmaster_process off;\npid {{folder}}/pid;\nerror_log stderr;\nevents {{ }}\n\
         http {{\naccess_log off;\n{temporary}{site}\n}}\n"
    )
}

/// The example for Caddy, without TLS.
async fn caddy(chain: &Chain, folder: &tempfile::TempDir) -> (Process, SocketAddr) {
    let address = free_address();
    let site = example(
        "examples/Caddyfile",
        &[
            (
                "\nchat.example.org {",
                &format!("\nhttp://{address} {{\n\tbind 127.0.0.1"),
            ),
            ("127.0.0.1:8080", &chain.chat.address().to_string()),
            ("127.0.0.1:8081", &chain.sse.address().to_string()),
        ],
    );
    let file = folder.path().join("Caddyfile");
    std::fs::write(&file, format!("{{\n\tadmin off\n}}\n{site}")).unwrap();
    let caddy = Program::of_system("caddy", "caddy").args(["run", "--adapter", "caddyfile"]);
    let caddy = caddy.arg("--config").arg(file);
    let caddy = ["HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"]
        .into_iter()
        .fold(caddy, |caddy, name| caddy.env(name, folder.path()));
    let mut process = caddy.spawn();
    eventually!(SOON, {
        let ended = process.ended();
        ensure!(ended.is_none(), "{ended:?}: {}", process.stderr());
        TcpStream::connect(address).await?;
        Ok(())
    });
    (process, address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restart_behind_each_proxy_loses_nothing() {
    let mut chain = Chain::start().await;
    let folder = tempfile::tempdir().unwrap();
    let nginx = nginx(&chain).await;
    let outer = nginx_under_a_path(nginx.address()).await;
    let (_caddy, caddy) = caddy(&chain, &folder).await;
    let proxies = [
        ("nginx", format!("http://{}", nginx.address())),
        (
            "nginx behind nginx, under a path",
            format!("http://{}/chat", outer.address()),
        ),
        ("Caddy", format!("http://{caddy}")),
    ];

    // As a browser sees it from outside.
    for (name, url) in &proxies {
        let doctor = hark(["doctor", "--chat", url, "--sse", url]);
        let seen = doctor
            .args(["--origin", "http://localhost:3000"])
            .run(SOON)
            .await;
        assert_eq!(seen.status.code(), Some(0), "{name}: {seen:?}");
    }

    let channel = new_channel();
    let mut recordings = Vec::new();
    for (name, url) in &proxies {
        for _ in 0..LISTENERS {
            let stream = format!("{url}/events?c={channel}");
            recordings.push((name, Recording::start(Listener::new(stream))));
        }
    }
    for (_, recording) in &recordings {
        recording.wait_for(SOON, "ready", 1).await;
    }
    let sender = chain.sender();
    for round in 1..=2 {
        sender.post_many(&channel, POSTS / 3).await;
        chain.sse.kill().await;
        sender.post_many(&channel, POSTS / 6).await;
        // Long enough that every listener has met the proxy's own answer.
        let connects: Vec<_> = recordings.iter().map(|(_, one)| one.connects()).collect();
        eventually!(SOON, {
            for ((name, recording), before) in recordings.iter().zip(&connects) {
                let now = recording.connects();
                ensure!(now > *before, "{name}: no attempt in round {round}");
            }
            Ok(())
        });
        chain.sse.start().await;
        for (_, recording) in &recordings {
            recording.wait_for(SOON, "message", POSTS / 2 * round).await;
        }
    }
    for (name, recording) in &recordings {
        let ledger =
            Ledger::of(&recording.events()).unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
        assert_eq!(ledger.delivered(&channel).len(), POSTS, "{name}");
        assert!(ledger.gaps(&channel).is_empty(), "{name}");
    }
}
