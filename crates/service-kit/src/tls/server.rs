use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{info, warn};

use super::TlsError;

/// How often the files are looked at. Renewed certificates are written days before the old ones
/// end.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Protocols that are offered by ALPN (RFC 7301), best first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The `[tls]` table of a service's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The certificate, followed by those of its issuers, as PEM. Empty: plain HTTP.
    pub cert: PathBuf,
    /// The certificate's private key as PEM, not encrypted.
    pub key: PathBuf,
}

impl TlsConfig {
    /// What the two files hold; `None` if none is named.
    ///
    /// # Errors
    /// When a file cannot be used. The text names it.
    pub fn load(&self) -> Result<Option<Arc<ServerTls>>, TlsError> {
        let named = [&self.cert, &self.key].map(|path| !path.as_os_str().is_empty());
        match named {
            [true, true] => ServerTls::load(&self.cert, &self.key).map(|tls| Some(Arc::new(tls))),
            [false, false] => Ok(None),
            _ => Err(TlsError::HalfAPair),
        }
    }
}

/// A server's certificate and key, read again when their files change.
#[derive(Debug)]
pub struct ServerTls {
    cert: PathBuf,
    key: PathBuf,
    current: Mutex<Arc<ServerConfig>>,
    read_at: Mutex<Stamp>,
}

/// When the two files were last written, and their sizes: the clock of a file system is coarse.
type Stamp = [Option<(SystemTime, u64)>; 2];

impl ServerTls {
    /// Reads a certificate, with those of its issuers, and its key, both PEM. TLS 1.2 and 1.3,
    /// HTTP/2 and HTTP/1.1.
    ///
    /// # Errors
    /// When a file cannot be used. The text names it.
    pub fn load(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let stamp = stamp(cert, key);
        let config = read(cert, key)?;
        Ok(Self {
            cert: cert.to_owned(),
            key: key.to_owned(),
            current: Mutex::new(config),
            read_at: Mutex::new(stamp),
        })
    }

    /// The handshake with a client that has connected.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let config = Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner));
        TlsAcceptor::from(config).accept(stream).await
    }

    /// Looks at the files now and then, for ever. New connections get what they hold then; a pair
    /// that cannot be used is told once and changes nothing.
    pub(crate) async fn keep_fresh(self: Arc<Self>) {
        loop {
            sleep(LOOK_EVERY).await;
            let looking = Arc::clone(&self);
            let looked = tokio::task::spawn_blocking(move || looking.look()).await;
            match looked {
                Ok(Ok(false)) => {}
                Ok(Ok(true)) => info!(cert = %self.cert.display(), "using the new certificate"),
                Ok(Err(error)) => warn!(%error, "the certificate in use stays"),
                Err(error) => warn!(%error, "looking for a new certificate failed"),
            }
        }
    }

    /// Whether there was something new.
    fn look(&self) -> Result<bool, TlsError> {
        let stamp = stamp(&self.cert, &self.key);
        {
            let mut read_at = self.read_at.lock().unwrap_or_else(PoisonError::into_inner);
            if *read_at == stamp {
                return Ok(false);
            }
            *read_at = stamp;
        }
        let config = read(&self.cert, &self.key)?;
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(true)
    }
}

fn stamp(cert: &Path, key: &Path) -> Stamp {
    [cert, key].map(|path| {
        // A file that is not there now has no time; reading it tells why.
        let file = path.metadata().ok()?;
        Some((file.modified().ok()?, file.len()))
    })
}

fn read(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let certificates = CertificateDer::pem_slice_iter(&bytes(cert)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| not_pem(cert, &error))?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate {
            path: cert.to_owned(),
        });
    }
    let private = PrivateKeyDer::from_pem_slice(&bytes(key)?).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::NoKey {
            path: key.to_owned(),
        },
        error => not_pem(key, &error),
    })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the cipher suites of TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_single_cert(certificates, private)
        .map_err(|error| TlsError::BadPair {
            cert: cert.to_owned(),
            key: key.to_owned(),
            reason: error.to_string(),
        })?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
    Ok(Arc::new(config))
}

fn bytes(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Unreadable {
        path: path.to_owned(),
        source,
    })
}

fn not_pem(path: &Path, error: &pem::Error) -> TlsError {
    TlsError::NotPem {
        path: path.to_owned(),
        reason: error.to_string(),
    }
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
        let tls = ServerTls::load(&cert, &key).unwrap();
        let in_use = || Arc::clone(&tls.current.lock().unwrap());
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
