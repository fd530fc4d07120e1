use std::sync::Arc;

use parking_lot::Mutex;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use tracing::{info, warn};

use super::pair::{Pair, Watched};
use super::{TlsError, provider};

/// The certificate that a client shows, read again at a handshake when its files have changed: two
/// questions to the file system, where connections are kept for long.
#[derive(Debug)]
pub(super) struct ShownCertificate {
    pair: Pair,
    watched: Watched,
    current: Mutex<Arc<CertifiedKey>>,
}

impl ShownCertificate {
    pub(super) fn load(pair: Pair) -> Result<Self, TlsError> {
        let watched = Watched::new(vec![pair.cert.clone(), pair.key.clone()]);
        let current = Mutex::new(read(&pair)?);
        Ok(Self {
            pair,
            watched,
            current,
        })
    }

    /// What the files hold now; as before when that cannot be used, which is told once.
    fn fresh(&self) -> Arc<CertifiedKey> {
        let mut current = self.current.lock();
        if self.watched.changed() {
            let cert = self.pair.cert.display();
            match read(&self.pair) {
                Ok(new) => {
                    info!(%cert, "showing the new certificate");
                    *current = new;
                }
                Err(error) => warn!(%error, "the certificate in use stays"),
            }
        }
        Arc::clone(&current)
    }
}

fn read(pair: &Pair) -> Result<Arc<CertifiedKey>, TlsError> {
    let (certificates, private) = pair.read()?;
    let certified = CertifiedKey::from_der(certificates, private, &provider());
    let certified = certified.map_err(|error| pair.refused(&error))?;
    Ok(Arc::new(certified))
}

impl ResolvesClientCert for ShownCertificate {
    fn resolve(
        &self,
        _authorities: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let certified = self.fresh();
        // A key of another kind than the server verifies is as good as none.
        certified.key.choose_scheme(schemes)?;
        Some(certified)
    }

    fn has_certs(&self) -> bool {
        true
    }
}
