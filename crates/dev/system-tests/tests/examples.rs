//! The examples in `deploy/`, read by the programs that they are for, and put together: what is
//! copied from there works.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use system_tests::{Sender, deploy, example, new_channel};
use tempfile::TempDir;
use test_kit::{Certificates, Listener, Process, Program, ensure, eventually, free_address};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SOON: Duration = Duration::from_secs(20);
/// The name under which the examples serve everything.
const HOST: &str = "chat.example.org";

fn write(folder: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

async fn wait_until_it_listens(process: &mut Process, address: SocketAddr) {
    eventually!(SOON, {
        let ended = process.ended();
        ensure!(ended.is_none(), "{ended:?}: {}", process.stderr());
        TcpStream::connect(address).await?;
        Ok(())
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_configuration_is_taken_by_its_program() {
    for (binary, file, setting) in [
        (
            "chat-service",
            "chat-service.toml",
            "dir = \"/var/lib/hark\"",
        ),
        (
            "broadcast-sse",
            "broadcast-sse.toml",
            "mode = \"per-channel\"",
        ),
        ("broker", "broker.toml", "listen = \"127.0.0.1:1883\""),
        ("hark", "hark.toml", "listen = \"0.0.0.0:8080\""),
    ] {
        let program = Program::of_workspace(binary).arg("--config");
        let program = program.arg(deploy("examples").join(file));
        let printed = program.arg("--print-config").run(SOON).await;
        assert_eq!(printed.status.code(), Some(0), "{file}: {printed:?}");
        assert!(printed.stdout.contains(setting), "{file}: {printed:?}");
    }
    let all = std::fs::read_dir(deploy("examples")).unwrap().count();
    assert_eq!(
        all, 12,
        "an example that no test here, in broker_examples.rs or in proxies.rs knows?"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn systemd_finds_nothing_wrong_with_the_units() {
    let folder = tempfile::tempdir().unwrap();
    let verify = Program::of_system("systemd-analyze", "systemd").arg("verify");
    for binary in ["chat-service", "broadcast-sse", "broker", "hark"] {
        let built = Program::of_workspace(binary);
        let built = built.path().to_str().unwrap();
        let installed = format!("/usr/local/bin/{binary} ");
        let unit = format!("{binary}.service");
        let text = example(
            &format!("systemd/{unit}"),
            &[(&installed, &format!("{built} "))],
        );
        let unit = write(&folder, &unit, &text);
        let verified = verify.clone().arg(&unit).run(SOON).await;
        assert!(verified.status.success(), "{verified:?}");
        // A key that it does not know is only a remark, beside those on the machine's own units.
        let remark = verified.stderr.contains(unit.to_str().unwrap());
        assert!(!remark, "{verified:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_takes_its_configuration_with_tls() {
    let folder = tempfile::tempdir().unwrap();
    let (key, certificate) = (
        folder.path().join("key.pem"),
        folder.path().join("cert.pem"),
    );
    let openssl = Program::of_system("openssl", "openssl")
        .args(["req", "-x509", "-nodes", "-subj", "/CN=test", "-newkey"])
        .args(["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-keyout"]);
    let made = openssl.arg(&key).arg("-out").arg(&certificate);
    let made = made.run(SOON).await;
    assert!(made.status.success(), "{made:?}");
    let letsencrypt = |file: &str| format!("/etc/letsencrypt/live/{HOST}/{file}");
    let site = example(
        "examples/nginx.conf",
        &[
            (&letsencrypt("fullchain.pem"), certificate.to_str().unwrap()),
            (&letsencrypt("privkey.pem"), key.to_str().unwrap()),
        ],
    );
    let tested = nginx(&folder, &site).arg("-t").run(SOON).await;
    assert!(tested.status.success(), "{tested:?}");
    assert!(!tested.stderr.contains("[warn]"), "{tested:?}");
}

/// nginx with this file in its `http` block, and everything that it writes in the folder.
fn nginx(folder: &TempDir, site: &str) -> Program {
    let site = write(folder, "site.conf", site);
    let own = folder.path().display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {own}/{kind};\n"))
        .concat();
    // One process: killing it leaves no workers behind.
    let main = format!(
        "daemon off;\nmaster_process off;\npid {own}/pid;\nerror_log stderr;\nevents {{}}\n\
         http {{\naccess_log off;\n{temporary}include {};\n}}\n",
        site.display()
    );
    let main = write(folder, "nginx.conf", &main);
    Program::of_system("nginx", "nginx")
        .arg("-p")
        .arg(folder.path())
        .args(["-e", "stderr", "-c"])
        .arg(main)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn together_they_are_a_chat_behind_a_proxy_with_a_guarded_broker() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = Certificates::write(folder.path());
    let (mut mosquitto, broker, tls_port) = mosquitto(&folder, &certificates).await;
    let mut chat = service("chat-service", broker)
        .env("HARK_STORE__DIR", folder.path().join("store"))
        .start()
        .await;
    let mut sse = service("broadcast-sse", broker)
        .env("HARK_HISTORY__URL", chat.url("chat"))
        // As from another machine.
        .env("HARK_MQTT__URL", format!("mqtts://localhost:{tls_port}"))
        .env("HARK_MQTT__CA_FILE", certificates.authority())
        .start()
        .await;
    let proxy = free_address();
    let site = example(
        "examples/nginx.conf",
        &[
            (
                "server 127.0.0.1:8080;",
                &format!("server {};", chat.socket("chat")),
            ),
            (
                "server 127.0.0.1:8081;",
                &format!("server {};", sse.socket("sse")),
            ),
            ("listen 443 ssl http2;", &format!("listen {proxy};")),
            ("ssl_certificate ", "# "),
            ("ssl_certificate_key ", "# "),
            (
                "/usr/share/hark/client-demo",
                deploy("../client-demo").to_str().unwrap(),
            ),
        ],
    );
    let mut nginx = nginx(&folder, &site).spawn();
    wait_until_it_listens(&mut nginx, proxy).await;

    // Through the proxy, by its public name, there and back.
    let channel = new_channel();
    let stream = format!("http://{proxy}/events?c={channel}");
    let mut listener = Listener::new(&stream);
    listener.expect("ready", SOON).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let post = client.post(format!("http://{proxy}/channels/{channel}/messages"));
    let post = post
        .header("Host", HOST)
        .header("Origin", format!("https://{HOST}"))
        .body("one");
    let answer = post.send().await.unwrap();
    let (status, line) = (answer.status(), answer.text().await.unwrap());
    assert_eq!(status, 201, "{line}");
    assert_eq!(listener.expect("message", SOON).await.data, line);
    let page = client.get(format!("http://{proxy}/")).send().await.unwrap();
    assert!(page.text().await.unwrap().contains("<html"));
    let heads = client.post(format!("http://{proxy}/heads")).send().await;
    assert_eq!(heads.unwrap().status(), 404, "not for strangers");

    // The broker: no log-in, no connection; broadcast-sse may not publish, whatever it sends.
    assert_eq!(connect(broker, None).await.1, 5, "not authorised");
    let forged = line
        .replace("\"seq\":1", "\"seq\":2")
        .replace("one", "forged");
    let (mut stranger, code) = connect(broker, Some(("broadcast-sse", "of broadcast-sse"))).await;
    assert_eq!(code, 0, "accepted");
    publish(&mut stranger, &format!("chat/{channel}"), &forged).await;
    let sender = Sender::to(chat.url("chat"));
    let second = sender.post(&channel, "two").await;
    assert_eq!(listener.expect("message", SOON).await.data, second.line);

    // Without broadcast-sse a browser is told to come back, not sent away for good.
    sse.kill().await;
    let away = client.get(&stream).send().await.unwrap();
    assert_eq!(away.status(), 200);
    assert_eq!(away.headers()["content-type"], "text/event-stream");
    let away = away.text().await.unwrap();
    let (retry, ping) = away.split_once('\n').unwrap();
    assert!(retry.starts_with("retry: "), "{away}");
    assert_eq!(ping, "event: ping\ndata: {}\n\n");

    nginx.kill().await;
    chat.kill().await;
    mosquitto.kill().await;
}

/// Neither a proxy, which has no share of connections, nor a node, which reads without limit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_a_proxy_before_compose_names_is_a_client_in_a_private_network_too() {
    let folder = tempfile::tempdir().unwrap();
    let [proxies, nodes] = ["HARK_LIMITS__TRUSTED_PROXIES", "HARK_LIMITS__NODES"];
    let mut chat = service("chat-service", free_address())
        .env("HARK_STORE__DIR", folder.path().join("store"))
        // This machine stands in for nginx.
        .env(proxies, format!("127.0.0.1,{}", of_compose(proxies)))
        .env(nodes, of_compose(nodes))
        .env("HARK_LIMITS__READS_PER_SECOND", "0.01")
        .env("HARK_LIMITS__READS_BURST", "1")
        .start()
        .await;
    let url = format!("{}/channels/{}", chat.url("chat"), new_channel());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let subnet = of_compose("HARK_PROXIES");
    let node = subnet.replace(".0/24", ".130");
    let gateway = subnet.replace(".0/24", ".1");
    for (from, second) in [
        ("192.168.1.50", 429),
        ("10.0.0.7", 429),
        ("172.16.3.4", 429),
        // Whoever comes by the published port without a proxy.
        (gateway.as_str(), 429),
        (node.as_str(), 200),
    ] {
        for expected in [200_u16, second] {
            let get = client.get(&url).header("X-Forwarded-For", from);
            let status = get.send().await.unwrap().status();
            assert_eq!(status, expected, "{from}");
        }
    }
    chat.kill().await;
}

/// The value that compose.yaml gives a setting, where nothing else is said.
fn of_compose(setting: &str) -> String {
    let text = example(
        "docker/compose.yaml",
        &[("${HARK_NETWORK:-", ""), ("}.", ".")],
    );
    let after = |start: &str| text.split_once(start).map(|(_, rest)| rest);
    let line = after(&format!(" {setting}: ")).and_then(|rest| rest.lines().next());
    let mut value = line.unwrap_or_else(|| panic!("no {setting} in compose.yaml"));
    if let Some(name) = value.strip_prefix('*') {
        value = after(&format!("&{name} ")).unwrap().lines().next().unwrap();
    }
    value.split('"').nth(1).unwrap().to_owned()
}

/// A service as in its example, with this broker and free ports.
fn service(name: &str, broker: SocketAddr) -> Program {
    Program::of_workspace(name)
        .arg("--config")
        .arg(deploy("examples").join(format!("{name}.toml")))
        .env("HARK_LISTEN", "127.0.0.1:0")
        .env("HARK_OPERATIONS__LISTEN", "127.0.0.1:0")
        .env("HARK_MQTT__URL", format!("mqtt://{broker}"))
        .env("HARK_MQTT__PASSWORD", format!("of {name}"))
}

/// mosquitto as in the examples, with both users; its address, and its port for TLS.
async fn mosquitto(folder: &TempDir, certificates: &Certificates) -> (Process, SocketAddr, u16) {
    let passwords = folder.path().join("passwords");
    for user in ["chat-service", "broadcast-sse"] {
        let mut add = Program::of_system("mosquitto_passwd", "mosquitto").arg("-b");
        if !passwords.exists() {
            add = add.arg("-c");
        }
        let added = add.arg(&passwords).args([user, &format!("of {user}")]);
        let added = added.run(SOON).await;
        assert!(added.status.success(), "{added:?}");
    }
    let address = free_address();
    let tls_port = free_address().port();
    let tls = example(
        "examples/mosquitto-tls.conf",
        &[
            (
                "\nlistener 8883",
                &format!("\nlistener {tls_port} 127.0.0.1"),
            ),
            (
                "/etc/mosquitto/certs/hark.pem",
                certificates.server().to_str().unwrap(),
            ),
            (
                "/etc/mosquitto/certs/hark.key",
                certificates.key().to_str().unwrap(),
            ),
        ],
    );
    let further = folder.path().join("conf.d");
    std::fs::create_dir(&further).unwrap();
    std::fs::write(further.join("hark-tls.conf"), tls).unwrap();
    let text = example(
        "examples/mosquitto.conf",
        &[
            ("/etc/mosquitto/conf.d", further.to_str().unwrap()),
            ("listener 1883", &format!("listener {}", address.port())),
            (
                "/etc/mosquitto/hark.acl",
                deploy("examples/mosquitto.acl").to_str().unwrap(),
            ),
            ("log_dest stderr", "log_dest stderr\nuser root"),
            (
                "password_file /etc/mosquitto/hark.passwd",
                &format!("password_file {}", passwords.display()),
            ),
        ],
    );
    let config = write(folder, "mosquitto.conf", &text);
    let program = Program::of_system("mosquitto", "mosquitto").arg("-c");
    let mut process = program.arg(config).spawn();
    wait_until_it_listens(&mut process, address).await;
    (process, address, tls_port)
}

/// Connects (MQTT 3.1.1 §3.1) and gives the return code of the CONNACK (§3.2.2.3).
async fn connect(broker: SocketAddr, login: Option<(&str, &str)>) -> (TcpStream, u8) {
    let flags = if login.is_some() { 0xc2 } else { 0x02 };
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, flags, 0, 0];
    for text in ["stranger"].into_iter().chain(
        login
            .into_iter()
            .flat_map(|(user, password)| [user, password]),
    ) {
        body.extend([0, u8::try_from(text.len()).unwrap()]);
        body.extend(text.as_bytes());
    }
    let mut stream = TcpStream::connect(broker).await.unwrap();
    stream
        .write_all(&[0x10, u8::try_from(body.len()).unwrap()])
        .await
        .unwrap();
    stream.write_all(&body).await.unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer[..2], [0x20, 2], "CONNACK");
    (stream, answer[3])
}

/// Publishes with QoS 1 (§3.3); a broker answers also what its rules forbid (§3.3.5).
async fn publish(stream: &mut TcpStream, topic: &str, payload: &str) {
    let length = 2 + topic.len() + 2 + payload.len();
    assert!((128..16_384).contains(&length), "two bytes of length");
    let low = u8::try_from(length % 128).unwrap() | 0x80;
    let mut packet = vec![0x32, low, u8::try_from(length / 128).unwrap()];
    packet.extend([0, u8::try_from(topic.len()).unwrap()]);
    packet.extend(topic.as_bytes());
    packet.extend([0, 1]);
    packet.extend(payload.as_bytes());
    stream.write_all(&packet).await.unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, [0x40, 2, 0, 1], "PUBACK");
}
