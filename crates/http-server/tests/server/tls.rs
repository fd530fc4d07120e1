//! TLS: the protocols spoken over it, and new certificates.

mod client_ca;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_server::http::HttpOptions;
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::pki_types::ServerName;
use service_kit::tls::{self, TlsConfig};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::http2::{client, request, router};
use super::{LONG, Running, counted, options, start};

struct Site {
    folder: TempDir,
    server: Running,
}

impl Site {
    fn new() -> Self {
        Self::with(options())
    }

    fn with(options: HttpOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_pair(folder.path(), "first");
        let config = config(folder.path());
        let options = HttpOptions {
            tls: config.load().unwrap(),
            ..options
        };
        let (_turn, turns) = watch::channel(0_u64);
        let server = start(router(turns), options);
        Self { folder, server }
    }

    /// Connects as a client that trusts the certificate that is in the folder now.
    async fn connect(&self, protocols: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
        let trusted = tls::client(Some(&self.folder.path().join("cert.pem"))).unwrap();
        let mut config = (*trusted).clone();
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = self.server.connect().await;
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    }
}

fn config(folder: &Path) -> TlsConfig {
    TlsConfig {
        cert: folder.join("cert.pem"),
        key: folder.join("key.pem"),
        ..TlsConfig::default()
    }
}

fn write_pair(folder: &Path, name: &str) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    let cert = params.self_signed(&key).unwrap();
    std::fs::write(folder.join("cert.pem"), cert.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
}

async fn hello_over_http1(mut stream: TlsStream<TcpStream>) {
    let post = "POST /echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
    stream.write_all(post.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(LONG, stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("hello"),
        "{answer}"
    );
}

#[tokio::test]
async fn client_chooses_between_http1_and_http2() {
    let site = Site::new();
    hello_over_http1(site.connect(&[]).await.unwrap()).await;
    hello_over_http1(site.connect(&["http/1.1"]).await.unwrap()).await;
    let stream = site.connect(&["h2", "http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, _ended) = client(stream, 65_535).await;
    let answer = sender.send_request(request("/stream")).await.unwrap();
    assert_eq!(answer.status(), 200);
    drop((answer, sender));
    site.server.stop().await;
}

#[tokio::test]
async fn clients_that_take_nothing_are_let_go_and_counted() {
    let short = HttpOptions {
        write_stall: Duration::from_millis(300),
        ..options()
    };
    let cut = short.stalled.clone();
    let site = Site::with(short);

    let mut over_http1 = site.connect(&["http/1.1"]).await.unwrap();
    let get = "GET /flood HTTP/1.1\r\nhost: localhost\r\n\r\n";
    over_http1.write_all(get.as_bytes()).await.unwrap();
    counted(&cut, 1).await;

    let over_http2 = site.connect(&["h2"]).await.unwrap();
    let (mut sender, ended) = client(over_http2, 1_000).await;
    let answer = sender.send_request(request("/flood")).await.unwrap();
    timeout(LONG, ended).await.expect("it is cut").unwrap();
    assert_eq!(cut.get(), 2);
    drop((answer, over_http1));
    site.server.stop().await;
}

#[tokio::test]
async fn new_certificate_is_used_without_a_restart() {
    let site = Site::new();
    let before = site.connect(&[]).await.unwrap();
    write_pair(site.folder.path(), "second");
    timeout(LONG, async {
        // By now only the new one is trusted.
        while site.connect(&[]).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the new certificate is used");
    // A connection keeps the certificate that it began with.
    hello_over_http1(before).await;
    site.server.stop().await;
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |config: &TlsConfig| config.load().unwrap_err().to_string();
    assert!(TlsConfig::default().load().unwrap().is_none());
    let mut half = config(folder.path());
    half.key = Default::default();
    assert!(refused(&half).contains("set both"));
    let config = config(folder.path());
    assert!(refused(&config).contains("cert.pem"));
    write_pair(folder.path(), "one");
    let key = std::fs::read(&config.key).unwrap();
    write_pair(folder.path(), "other");
    std::fs::write(&config.key, key).unwrap();
    let text = refused(&config);
    assert!(
        text.contains("cert.pem") && text.contains("key.pem"),
        "{text}"
    );
    std::fs::write(&config.key, "no key").unwrap();
    assert!(refused(&config).contains("key.pem holds no private key"));
    std::fs::write(&config.cert, "nothing").unwrap();
    assert!(refused(&config).contains("holds no certificate"));
    let only_clients = TlsConfig {
        client_ca: config.cert.clone(),
        ..TlsConfig::default()
    };
    assert!(refused(&only_clients).contains("set `tls.cert`"));
    write_pair(folder.path(), "one");
    let clients = TlsConfig {
        client_ca: folder.path().join("clients.pem"),
        ..config
    };
    assert!(refused(&clients).contains("clients.pem"));
    std::fs::write(&clients.client_ca, "nobody").unwrap();
    assert!(refused(&clients).contains("clients.pem holds no certificate"));
}
