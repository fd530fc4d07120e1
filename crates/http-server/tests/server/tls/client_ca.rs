//! Clients that must show a certificate: which of them get a connection, also after files are replaced.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http_server::http::HttpOptions;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind};
use service_kit::tls::{self, TlsConfig};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{hello_over_http1, write_pair};
use crate::http2::router;
use crate::{LONG, Running, options, start};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A server that at first only clients of `ours` may use.
struct Site {
    folder: TempDir,
    server: Running,
    ours: Authority,
    others: Authority,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_pair(folder.path(), "the server");
        let path = |name: &str| folder.path().join(name);
        let (ours, others) = (authority("ours"), authority("others"));
        std::fs::write(path("clients.pem"), ours.pem()).unwrap();
        let config = TlsConfig {
            cert: path("cert.pem"),
            key: path("key.pem"),
            client_ca: path("clients.pem"),
        };
        let options = HttpOptions {
            tls: config.load().unwrap(),
            ..options()
        };
        let (_turn, turns) = watch::channel(0_u64);
        let server = start(router(turns), options);
        Self {
            folder,
            server,
            ours,
            others,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Trusts the server and shows no certificate.
    fn stranger(&self) -> ClientConfig {
        (*tls::client(Some(&self.path("cert.pem"))).unwrap()).clone()
    }

    /// Trusts the server and shows a certificate from this authority.
    fn client(&self, authority: &Authority, usage: ExtendedKeyUsagePurpose) -> ClientConfig {
        let [cert, key] = ["client.pem", "client.key"].map(|name| self.path(name));
        write_client(&cert, &key, authority, usage);
        let server = self.path("cert.pem");
        (*tls::client_with_certificate(Some(&server), &cert, &key).unwrap()).clone()
    }

    async fn connect(&self, config: &ClientConfig) -> io::Result<TlsStream<tokio::net::TcpStream>> {
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(config.clone()));
        connector.connect(name, self.server.connect().await).await
    }

    /// The answer to a GET of an unknown path. Over TLS 1.3 a client learns only then that it was refused.
    async fn ask(&self, config: &ClientConfig) -> io::Result<(String, HandshakeKind)> {
        let mut stream = self.connect(config).await?;
        let get = "GET /nothing HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        stream.write_all(get.as_bytes()).await?;
        let mut answer = String::new();
        let read = timeout(LONG, stream.read_to_string(&mut answer));
        read.await.expect("the server ends the connection")?;
        let kind = stream.get_ref().1.handshake_kind().unwrap();
        Ok((answer, kind))
    }

    async fn takes(&self, config: &ClientConfig) -> bool {
        match self.ask(config).await {
            Ok((answer, _)) => {
                assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
                true
            }
            Err(_refused) => false,
        }
    }

    async fn takes_at_last(&self, config: &ClientConfig) {
        timeout(LONG, async {
            while !self.takes(config).await {
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .expect("the client is taken");
    }
}

fn write_client(cert: &Path, key: &Path, authority: &Authority, usage: ExtendedKeyUsagePurpose) {
    let mut params = CertificateParams::new([]).unwrap();
    params.extended_key_usages = vec![usage];
    let pair = KeyPair::generate().unwrap();
    let signed = params.signed_by(&pair, authority).unwrap();
    std::fs::write(cert, signed.pem()).unwrap();
    std::fs::write(key, pair.serialize_pem()).unwrap();
}

#[tokio::test]
async fn only_clients_of_the_authority_get_a_connection() {
    let site = Site::new();
    let ours = site.client(&site.ours, ExtendedKeyUsagePurpose::ClientAuth);
    let open = site.connect(&ours).await.unwrap();
    assert!(site.takes(&ours).await);
    assert!(!site.takes(&site.stranger()).await);
    let others = site.client(&site.others, ExtendedKeyUsagePurpose::ClientAuth);
    assert!(!site.takes(&others).await);
    // A certificate for servers is not valid for a client.
    let server = site.client(&site.ours, ExtendedKeyUsagePurpose::ServerAuth);
    assert!(!site.takes(&server).await);
    // Over TLS 1.2 as well, where the handshake itself fails.
    for (shown, taken) in [
        (Some(&site.ours), true),
        (Some(&site.others), false),
        (None, false),
    ] {
        let tls12 = only_tls12(&site, shown);
        assert_eq!(site.connect(&tls12).await.is_ok(), taken);
    }
    // Open connections are not affected.
    hello_over_http1(open).await;
    site.server.stop().await;
}

/// A client that remembers sessions and speaks only TLS 1.2.
fn only_tls12(site: &Site, shown: Option<&Authority>) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap();
    remembering(site, shown, builder)
}

fn remembering(
    site: &Site,
    shown: Option<&Authority>,
    builder: rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>,
) -> ClientConfig {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let read = |name: &str| CertificateDer::from_pem_file(site.path(name)).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(read("cert.pem")).unwrap();
    let builder = builder.with_root_certificates(roots);
    let Some(authority) = shown else {
        return builder.with_no_client_auth();
    };
    let [cert, key] = ["own.pem", "own.key"].map(|name| site.path(name));
    write_client(&cert, &key, authority, ExtendedKeyUsagePurpose::ClientAuth);
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    builder
        .with_client_auth_cert(vec![read("own.pem")], key)
        .unwrap()
}

#[tokio::test]
async fn no_session_outlives_the_authorities_that_it_began_with() {
    let site = Site::new();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let both = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let tls13 = remembering(&site, Some(&site.ours), both);
    let tls12 = only_tls12(&site, Some(&site.ours));
    for config in [&tls13, &tls12] {
        for _ in 0..3 {
            let (_, kind) = site.ask(config).await.unwrap();
            assert_ne!(kind, HandshakeKind::Resumed);
        }
    }
    std::fs::write(site.path("clients.pem"), site.others.pem()).unwrap();
    let others = site.client(&site.others, ExtendedKeyUsagePurpose::ClientAuth);
    site.takes_at_last(&others).await;
    assert!(!site.takes(&tls13).await);
    assert!(!site.takes(&tls12).await);
    site.server.stop().await;
}

#[tokio::test]
async fn client_shows_a_new_certificate_without_a_restart() {
    let site = Site::new();
    let client = site.client(&site.others, ExtendedKeyUsagePurpose::ClientAuth);
    assert!(!site.takes(&client).await);
    let [cert, key] = ["client.pem", "client.key"].map(|name| site.path(name));
    // Half of a pair changes nothing; the complete pair does.
    let before = std::fs::read(&key).unwrap();
    write_client(&cert, &key, &site.ours, ExtendedKeyUsagePurpose::ClientAuth);
    let after = std::fs::read(&key).unwrap();
    std::fs::write(&key, before).unwrap();
    assert!(!site.takes(&client).await);
    std::fs::write(&key, after).unwrap();
    site.takes_at_last(&client).await;
    site.server.stop().await;
}
