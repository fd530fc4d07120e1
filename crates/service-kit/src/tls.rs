//! TLS for clients and servers: which authorities they trust, and which certificate they show.
//!
//! Uses rustls with ring. Its other provider, aws-lc, needs a C toolchain and minutes to compile.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;

mod pair;
mod server;
mod shown;

use pair::Pair;
pub use server::{ServerTls, TlsConfig};
use shown::ShownCertificate;

/// Why a certificate or a key cannot be used. The text names the file.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is broken PEM.
    #[error("{} is not valid PEM: {reason}", path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The file is readable but contains no certificate.
    #[error(
        "{} holds no certificate as PEM (`-----BEGIN CERTIFICATE-----`)",
        path.display()
    )]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The file is readable but contains no private key.
    #[error(
        "{} holds no private key as PEM (`-----BEGIN PRIVATE KEY-----`)",
        path.display()
    )]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key cannot be used together.
    #[error(
        "the certificate in {} and the key in {} cannot be used: {reason}",
        cert.display(),
        key.display()
    )]
    BadPair {
        /// The file of the certificate.
        cert: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Only one of the two files is named.
    #[error("`tls.cert` and `tls.key` belong together: set both, or none for plain HTTP")]
    HalfAPair,
    /// A client certificate is required on a port without TLS.
    #[error(
        "`tls.client_ca` asks clients for a certificate, which they can only show over TLS: set `tls.cert` and `tls.key` as well"
    )]
    NothingToShowItOver,
    /// The PEM text does not contain a certificate that can be trusted.
    #[error("{} holds something that is not a certificate: {reason}", path.display())]
    BadCertificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// No file was named, and the system has no certificates of its own.
    #[error(
        "the system has no certificates of authorities: install the package ca-certificates, or name a file: {reason}"
    )]
    NoRoots {
        /// What was wrong in the places where it looked.
        reason: String,
    },
}

/// A configuration for TLS 1.2 and 1.3 that always verifies the server. The server's certificate must
/// name the requested host and be signed by an authority in `ca_file` (PEM, one certificate or more),
/// or by one of the system's if there is no file. No client certificate, no ALPN. Use one
/// configuration for all connections: it remembers sessions.
///
/// # Errors
/// When there is no authority to trust. The file is read now and not again.
pub fn client(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    Ok(Arc::new(configuration(trusted(ca_file)?, None)))
}

/// Like [`client`], but shows a certificate (followed by those of its issuers) if a server asks for
/// one. Certificate and key, both PEM, are read again at the next handshake after they have changed.
/// Sessions are not resumed: a resumed session would stand for the certificate that was shown when it
/// began.
///
/// # Errors
/// When there is no authority to trust, or the certificate cannot be used with the key.
pub fn client_with_certificate(
    ca_file: Option<&Path>,
    cert: &Path,
    key: &Path,
) -> Result<Arc<ClientConfig>, TlsError> {
    let roots = trusted(ca_file)?;
    let shown = ShownCertificate::load(Pair::new(cert, key))?;
    let mut config = configuration(roots, Some(Arc::new(shown)));
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// A configuration that trusts nobody, for a client that will not use TLS.
pub fn trusting_nobody() -> Arc<ClientConfig> {
    Arc::new(configuration(RootCertStore::empty(), None))
}

fn configuration(roots: RootCertStore, shown: Option<Arc<dyn ResolvesClientCert>>) -> ClientConfig {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring has the cipher suites of TLS 1.2 and 1.3")
        .with_root_certificates(roots);
    match shown {
        Some(shown) => config.with_client_cert_resolver(shown),
        None => config.with_no_client_auth(),
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn trusted(ca_file: Option<&Path>) -> Result<RootCertStore, TlsError> {
    match ca_file {
        Some(path) => from_file(path),
        None => of_system(),
    }
}

/// Reads a whole file. The parser's own reading says less about a file that cannot be read.
fn bytes(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Unreadable {
        path: path.to_owned(),
        source,
    })
}

/// The certificates of a file, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_slice_iter(&bytes(path)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| TlsError::NotPem {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate {
            path: path.to_owned(),
        });
    }
    Ok(certificates)
}

/// The authorities of a file, at least one.
fn from_file(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| TlsError::BadCertificate {
                path: path.to_owned(),
                reason: error.to_string(),
            })?;
    }
    Ok(roots)
}

fn of_system() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // The system's collection may hold certificates too old to be parsed. A missing authority shows
    // when a server is met whose certificate it signed.
    let (taken, _passed_over) = roots.add_parsable_certificates(found.certs);
    if taken == 0 {
        let reasons: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        let reason = if reasons.is_empty() {
            "none was found".to_owned()
        } else {
            reasons.join("; ")
        };
        return Err(TlsError::NoRoots { reason });
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(content: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        std::fs::write(&file, content).unwrap();
        let error = client(Some(&file)).unwrap_err().to_string();
        assert!(error.contains("ca.pem"), "{error}");
        error
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = client(Some(Path::new("/nowhere/ca.pem"))).unwrap_err();
        assert!(matches!(error, TlsError::Unreadable { .. }), "{error}");
        assert!(error.to_string().contains("/nowhere/ca.pem"), "{error}");
    }

    #[test]
    fn what_holds_no_certificate_is_refused() {
        assert!(refused("").contains("no certificate"));
        let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert!(refused(key).contains("no certificate"));
        let cut = "-----BEGIN CERTIFICATE-----\nAAAA\n";
        assert!(refused(cut).contains("not valid PEM"));
        let other = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(refused(other).contains("not a certificate"));
    }

    #[test]
    fn a_certificate_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        let made = rcgen::generate_simple_self_signed(vec!["broker".to_owned()]).unwrap();
        std::fs::write(&file, made.cert.pem()).unwrap();
        let config = client(Some(&file)).unwrap();
        assert!(config.alpn_protocols.is_empty());
    }
}
