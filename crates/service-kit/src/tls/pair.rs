use std::path::{Path, PathBuf};
use std::time::SystemTime;

use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};

use super::{TlsError, bytes, certificates};

/// The files of a certificate and of its private key.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
}

impl Pair {
    pub(super) fn new(cert: &Path, key: &Path) -> Self {
        Self {
            cert: cert.to_owned(),
            key: key.to_owned(),
        }
    }

    /// The certificate, followed by those of its issuers, and the key.
    pub(super) fn read(
        &self,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
        let certificates = certificates(&self.cert)?;
        let private = PrivateKeyDer::from_pem_slice(&bytes(&self.key)?);
        let private = private.map_err(|error| match error {
            pem::Error::NoItemsFound => TlsError::NoKey {
                path: self.key.clone(),
            },
            error => TlsError::NotPem {
                path: self.key.clone(),
                reason: error.to_string(),
            },
        })?;
        Ok((certificates, private))
    }

    /// The error for files whose content rustls cannot use.
    pub(super) fn refused(&self, error: &rustls::Error) -> TlsError {
        TlsError::BadPair {
            cert: self.cert.clone(),
            key: self.key.clone(),
            reason: error.to_string(),
        }
    }
}

/// Files that are watched for changes.
#[derive(Debug)]
pub(super) struct Watched {
    paths: Vec<PathBuf>,
    seen: Mutex<Vec<Stamp>>,
}

/// When a file was last written, and its size, because file systems keep time coarsely. A missing file
/// has neither; reading it tells why.
type Stamp = Option<(SystemTime, u64)>;

impl Watched {
    /// Call this before the files are read for the first time, so that no change is missed.
    pub(super) fn new(paths: Vec<PathBuf>) -> Self {
        let seen = Mutex::new(stamps(&paths));
        Self { paths, seen }
    }

    /// Whether one of the files has changed since the last call.
    pub(super) fn changed(&self) -> bool {
        let now = stamps(&self.paths);
        let mut seen = self.seen.lock();
        let changed = *seen != now;
        *seen = now;
        changed
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |path: &PathBuf| {
        let file = path.metadata().ok()?;
        Some((file.modified().ok()?, file.len()))
    };
    paths.iter().map(stamp).collect()
}
