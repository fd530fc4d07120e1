use std::sync::Arc;

use parking_lot::Mutex;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use tracing::{info, warn};

use super::pair::{Pair, Watched};
use super::{TlsError, provider};

/// The certificate that a client shows. Each handshake checks whether its files have changed, which
/// takes two system calls; connections are long-lived, so handshakes are rare.
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

    /// The current content of the files. If it cannot be used, the previous content, and one line in
    /// the log.
    fn fresh(&self) -> Arc<CertifiedKey> {
        let mut current = self.current.lock();
        if self.watched.changed() {
            let cert = self.pair.cert.display();
            match read(&self.pair) {
                Ok(new) => {
                    info!(%cert, "showing the new certificate");
                    *current = new;
                }
                Err(error) => warn!(%error, "keeping the certificate in use"),
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
        // A key that the server cannot verify is of no use.
        certified.key.choose_scheme(schemes)?;
        Some(certified)
    }

    fn has_certs(&self) -> bool {
        true
    }
}
