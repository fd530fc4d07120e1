use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

/// An authority of the test's own, and the certificates of a server and of a
/// client that it has signed, as PEM files. Nobody's system trusts it.
pub struct Certificates {
    authority: PathBuf,
    server: PathBuf,
    key: PathBuf,
    client: PathBuf,
    client_key: PathBuf,
}

impl Certificates {
    /// Makes them in this folder, for a server at `localhost` and `127.0.0.1`.
    ///
    /// # Panics
    /// When the files cannot be written.
    #[must_use]
    pub fn write(folder: &Path) -> Self {
        Self::write_for(folder, &["localhost", "127.0.0.1"])
    }

    /// Makes them for a server of these names and addresses.
    ///
    /// # Panics
    /// When the files cannot be written, or a name is none.
    #[must_use]
    pub fn write_for(folder: &Path, names: &[&str]) -> Self {
        let mut authority = CertificateParams::new([]).expect("no names");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Other names than the server's, or OpenSSL takes that one for the authority itself.
        let name = &mut authority.distinguished_name;
        name.push(DnType::CommonName, "the authority of a test");
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key");
        let authority = CertifiedIssuer::self_signed(authority, key).expect("a certificate");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut server = CertificateParams::new(names).expect("names of a server");
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().expect("a key");
        let server = server.signed_by(&key, &authority).expect("a certificate");
        let mut client = CertificateParams::new([]).expect("no names");
        client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let client_key = KeyPair::generate().expect("a key");
        let client = client.signed_by(&client_key, &authority);
        let client = client.expect("a certificate");
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).expect("write a certificate");
            path
        };
        Self {
            authority: write("authority.pem", &authority.pem()),
            server: write("server.pem", &server.pem()),
            key: write("server.key", &key.serialize_pem()),
            client: write("client.pem", &client.pem()),
            client_key: write("client.key", &client_key.serialize_pem()),
        }
    }

    /// The authority's certificate: what a client trusts.
    #[must_use]
    pub fn authority(&self) -> &Path {
        &self.authority
    }

    /// The server's certificate.
    #[must_use]
    pub fn server(&self) -> &Path {
        &self.server
    }

    /// The server's private key.
    #[must_use]
    pub fn key(&self) -> &Path {
        &self.key
    }

    /// A client's certificate, which is good for nothing else.
    #[must_use]
    pub fn client(&self) -> &Path {
        &self.client
    }

    /// The client's private key.
    #[must_use]
    pub fn client_key(&self) -> &Path {
        &self.client_key
    }
}
