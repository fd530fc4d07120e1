//! An encrypted connection, to a server whose certificate is verified.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::time::Duration;

use chat_store::{OpenError, PostgresStore, Store};
use test_kit::{Certificates, Postgres, ensure, eventually};

use crate::posts::{post, text};
use crate::support::Database;

#[tokio::test]
async fn server_is_verified() {
    let server = Postgres::start().await;
    let database = Database::at(server.database().await);
    let folder = server.folder().join("certificates");
    std::fs::create_dir(&folder).unwrap();
    let certificates = Certificates::write(&folder);
    let owner = server.folder().join("data").metadata().unwrap();
    for file in [folder.as_path(), certificates.server(), certificates.key()] {
        chown(file, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    std::fs::set_permissions(certificates.key(), Permissions::from_mode(0o600)).unwrap();
    let (certificate, key) = (
        certificates.server().display(),
        certificates.key().display(),
    );
    for setting in [
        format!("ssl_cert_file = '{certificate}'"),
        format!("ssl_key_file = '{key}'"),
        "ssl = on".to_owned(),
    ] {
        server
            .run("postgres", &format!("ALTER SYSTEM SET {setting}"))
            .await;
    }
    server.run("postgres", "SELECT pg_reload_conf()").await;
    let mut options = database.options();
    options.tls = true;
    options.ca_file = Some(certificates.authority().to_owned());
    let store = eventually!(Duration::from_secs(30), {
        Ok(PostgresStore::open(&options).await?)
    });
    assert_eq!(post(&store, text(1, "a")).await.unwrap(), 1);
    let encrypted = server
        .run("postgres", "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'hark'")
        .await;
    assert_eq!(encrypted, "t");
    store.close().await;
    // An authority that did not sign it.
    let other = tempfile::tempdir().unwrap();
    options.ca_file = Some(Certificates::write(other.path()).authority().to_owned());
    eventually!(Duration::from_secs(30), {
        let refused = PostgresStore::open(&options).await;
        let is_refused = matches!(
            &refused,
            Err(error @ OpenError::UnusableDatabase { .. }) if error.to_string().contains("certificate")
        );
        ensure!(is_refused, "{refused:?}");
        Ok(())
    });
}
