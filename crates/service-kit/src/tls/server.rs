use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{info, warn};

use super::pair::{Pair, Watched};
use super::{TlsError, from_file, provider};

/// How often the files are checked for changes. Certificates are renewed days before the old ones
/// expire.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Protocols offered by ALPN (RFC 7301), best first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The `[tls]` table of a service's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The certificate, followed by those of its issuers, as PEM. If empty, the service uses plain HTTP.
    pub cert: PathBuf,
    /// The certificate's private key as PEM, not encrypted.
    pub key: PathBuf,
    /// Certificates of authorities, as PEM. Only clients with a certificate signed by one of them get a
    /// connection. If empty, all clients do.
    pub client_ca: PathBuf,
}

impl TlsConfig {
    /// Loads the files; `None` if none is named.
    ///
    /// # Errors
    /// When a file cannot be used. The text names it.
    pub fn load(&self) -> Result<Option<Arc<ServerTls>>, TlsError> {
        let empty = |path: &Path| path.as_os_str().is_empty();
        match (empty(&self.cert), empty(&self.key)) {
            (false, false) => {
                let client_ca = (!empty(&self.client_ca)).then_some(&*self.client_ca);
                let tls = ServerTls::load(Pair::new(&self.cert, &self.key), client_ca)?;
                Ok(Some(Arc::new(tls)))
            }
            (true, true) if empty(&self.client_ca) => Ok(None),
            (true, true) => Err(TlsError::NothingToShowItOver),
            _ => Err(TlsError::HalfAPair),
        }
    }
}

/// A server's certificate and key, and the authorities of its clients. They are read again when their
/// files change.
#[derive(Debug)]
pub struct ServerTls {
    pair: Pair,
    client_ca: Option<PathBuf>,
    watched: Watched,
    current: Mutex<Arc<ServerConfig>>,
}

impl ServerTls {
    /// TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1.
    fn load(pair: Pair, client_ca: Option<&Path>) -> Result<Self, TlsError> {
        let mut paths = vec![pair.cert.clone(), pair.key.clone()];
        paths.extend(client_ca.map(Path::to_owned));
        let watched = Watched::new(paths);
        let config = read(&pair, client_ca)?;
        Ok(Self {
            pair,
            client_ca: client_ca.map(Path::to_owned),
            watched,
            current: Mutex::new(config),
        })
    }

    /// Does the handshake with a client that has connected. It may take as long as the client likes, so
    /// the caller must limit it.
    ///
    /// # Errors
    /// If the client breaks it off, or does not have the certificate that is required.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let config = Arc::clone(&self.current.lock());
        TlsAcceptor::from(config).accept(stream).await
    }

    /// Checks the files every few seconds, for ever. New connections use the latest content. Files that
    /// cannot be used change nothing and are logged once.
    pub async fn keep_fresh(self: Arc<Self>) {
        loop {
            sleep(LOOK_EVERY).await;
            let looking = Arc::clone(&self);
            let looked = tokio::task::spawn_blocking(move || looking.look()).await;
            match looked {
                Ok(Ok(false)) => {}
                Ok(Ok(true)) => {
                    info!(cert = %self.pair.cert.display(), "using the new certificates");
                }
                Ok(Err(error)) => warn!(%error, "keeping the certificates in use"),
                Err(error) => warn!(%error, "cannot check for new certificates"),
            }
        }
    }

    /// Whether something had changed.
    fn look(&self) -> Result<bool, TlsError> {
        if !self.watched.changed() {
            return Ok(false);
        }
        let config = read(&self.pair, self.client_ca.as_deref())?;
        *self.current.lock() = config;
        Ok(true)
    }
}

fn read(pair: &Pair, client_ca: Option<&Path>) -> Result<Arc<ServerConfig>, TlsError> {
    let (certificates, private) = pair.read()?;
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring has the cipher suites of TLS 1.2 and 1.3");
    let config = match client_ca {
        Some(path) => config.with_client_cert_verifier(signed_by(path)?),
        None => config.with_no_client_auth(),
    };
    let mut config = config
        .with_single_cert(certificates, private)
        .map_err(|error| pair.refused(&error))?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
    if client_ca.is_some() {
        // A resumed session shows no certificate, so it could outlive the certificate that it began
        // with.
        config.session_storage = Arc::new(NoServerSessionStorage {});
    }
    Ok(Arc::new(config))
}

/// Refuses clients without a certificate from one of these authorities.
fn signed_by(path: &Path) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let roots = Arc::new(from_file(path)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
    verifier.map_err(|error| TlsError::BadCertificate {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    fn write(path: &Path, content: &str, age: Duration) {
        fs::write(path, content).unwrap();
        let file = File::options().write(true).open(path).unwrap();
        let written = file.metadata().unwrap().modified().unwrap();
        file.set_modified(written - age).unwrap();
    }

    #[test]
    fn pair_that_cannot_be_used_changes_nothing_and_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let [cert, key] = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
        let minute = Duration::from_secs(60);
        let pair = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let first = pair();
        write(&cert, &first.cert.pem(), 3 * minute);
        write(&key, &first.signing_key.serialize_pem(), 3 * minute);
        let tls = ServerTls::load(Pair::new(&cert, &key), None).unwrap();
        let in_use = || Arc::clone(&tls.current.lock());
        let began = in_use();
        assert!(!tls.look().unwrap());
        // Half of a new pair.
        let second = pair();
        write(&cert, &second.cert.pem(), 2 * minute);
        assert!(tls.look().is_err());
        assert!(!tls.look().unwrap());
        assert!(Arc::ptr_eq(&began, &in_use()));
        write(&key, &second.signing_key.serialize_pem(), minute);
        assert!(tls.look().unwrap());
        assert!(!Arc::ptr_eq(&began, &in_use()));
    }
}
