use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use super::folder::Folder;
use super::{Postgres, programs};
use crate::Certificates;

impl Postgres {
    /// Starts one that takes only encrypted connections over TCP, at `localhost`
    /// and `127.0.0.1`. Who connects must trust its [authority](Self::authority).
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn start_with_tls() -> Self {
        let folder = Folder::new();
        let certificates = Certificates::write(folder.path());
        // PostgreSQL refuses a key that others may read.
        let private = fs::Permissions::from_mode(0o600);
        fs::set_permissions(certificates.key(), private).expect("change the mode of a file");
        programs::give_to_server(certificates.key());
        let (server, key) = (certificates.server(), certificates.key());
        let settings = [
            ("ssl", "on".to_owned()),
            ("ssl_cert_file", server.display().to_string()),
            ("ssl_key_file", key.display().to_string()),
        ];
        let settings = settings
            .each_ref()
            .map(|(name, value)| (*name, value.as_str()));
        Self::prepare(&folder, &settings).await;
        let access = folder.data().join("pg_hba.conf");
        let encrypted = fs::read_to_string(&access).expect("read pg_hba.conf");
        let encrypted = encrypted.replace("\nhost ", "\nhostssl ");
        fs::write(&access, encrypted).expect("write pg_hba.conf");
        Self::of(folder).await
    }

    /// The certificate that a client of one [with TLS](Self::start_with_tls) must trust, as PEM.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.folder().join("authority.pem")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::programs::program;

    #[tokio::test]
    async fn only_encrypted_connections_are_taken() {
        let postgres = Postgres::start_with_tls().await;
        let ask = |mode: &str| {
            let mut psql = program("psql");
            let authority = postgres.authority();
            let url = format!("{}?sslmode={mode}", postgres.url("postgres"));
            psql.env("PGSSLROOTCERT", authority)
                .env("PGCONNECT_TIMEOUT", "10");
            psql.args([
                "--no-psqlrc",
                "-Atc",
                "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
            ]);
            psql.arg(url);
            async move { psql.output().await.unwrap() }
        };
        let verified = ask("verify-full").await;
        assert_eq!(verified.stdout, b"t\n", "{verified:?}");
        assert!(!ask("disable").await.status.success());
    }
}
