//! What an operator can set about a PostgreSQL store.

use std::path::PathBuf;
use std::time::Duration;

use clock::SharedClock;
use tokio_postgres::config::{Host, SslMode};

use crate::retention::check_option;
use crate::{KeyMemory, OpenError, Retention, queue};

/// How to open a [`PostgresStore`](crate::PostgresStore).
#[derive(Clone)]
pub struct PostgresOptions {
    /// `postgres://user@host:port/database`. Several hosts separated by commas are tried in order
    /// until one lets itself be written to, as libpq does it.
    pub url: String,
    /// The password; `None`: that of the URL, or none is needed.
    pub password: Option<String>,
    /// Whether the connection is encrypted and the server's certificate verified.
    pub tls: bool,
    /// The certificates of the authority that the server's must be signed by, as PEM. `None`: those
    /// of the system.
    pub ca_file: Option<PathBuf>,
    /// Connections for reading, 1 to 100. Two more are for writing and for retention.
    pub connections: usize,
    /// How long a connection may take until it can be used, for each host, at least 100 ms.
    pub connect_timeout: Duration,
    /// How long a statement may take, at least 1 s.
    pub statement_timeout: Duration,
    /// Whether an empty or older database is brought to today's format when the store is opened.
    pub migrate: bool,
    /// The clock for `at`, epochs and retention.
    pub clock: SharedClock,
    /// When events expire. The same in all processes of one store.
    pub retention: Retention,
    /// How long and how many of the senders' own ids and keys are remembered. The same in all
    /// processes of one store.
    pub keys: KeyMemory,
    /// Bytes that posts may take while they wait for the writer, at least 1 MiB.
    pub queue_bytes: usize,
    /// Posts in one transaction at most, 1 to 10,000.
    pub batch: usize,
    pub(super) timing: Timing,
    #[cfg(test)]
    pub(super) stops: super::tests::MayBeStopped,
}

/// What is no setting, but shorter in tests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    /// How long a lane stays with its owner without a sign of life.
    pub(super) lease: Duration,
    /// After which the server ends a session that holds locks and does nothing.
    pub(super) idle_transaction: Duration,
    /// How long posts wait for a lost connection to come back, before they fail at once.
    pub(super) patience: Duration,
}

impl PostgresOptions {
    /// Options with all defaults for the store in the database of a URL.
    #[must_use]
    pub fn new(url: impl Into<String>, clock: SharedClock) -> Self {
        Self {
            url: url.into(),
            password: None,
            tls: false,
            ca_file: None,
            connections: 4,
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(10),
            migrate: true,
            clock,
            retention: Retention::default(),
            keys: KeyMemory::default(),
            queue_bytes: 16 << 20,
            batch: 512,
            timing: Timing {
                lease: Duration::from_secs(10),
                idle_transaction: Duration::from_secs(5),
                patience: Duration::from_secs(3),
            },
            #[cfg(test)]
            stops: None,
        }
    }

    pub(super) fn validate(&self) -> Result<(), OpenError> {
        check_option(
            (1..=100).contains(&self.connections),
            "connections",
            "must be 1 to 100",
        )?;
        check_option(
            self.connect_timeout >= Duration::from_millis(100),
            "connect_timeout",
            "must be at least 100 ms",
        )?;
        check_option(
            self.statement_timeout >= Duration::from_secs(1),
            "statement_timeout",
            "must be at least 1 s",
        )?;
        queue::check_options(self.queue_bytes, self.batch)?;
        self.retention.validate()?;
        self.keys.validate()
    }

    /// The driver's configuration for each host of the URL, in order.
    pub(super) fn hosts(&self) -> Result<Vec<tokio_postgres::Config>, OpenError> {
        let bad = |reason: String| OpenError::BadOption {
            option: "url",
            reason,
        };
        let all: tokio_postgres::Config = self.url.parse().map_err(|error| {
            // The driver's own words never repeat the URL, which may hold a password.
            bad(format!(
                "must be postgres://user@host:port/database: {}",
                super::failure::words(&error)
            ))
        })?;
        if all.get_hosts().is_empty() {
            return Err(bad("must name a host".to_owned()));
        }
        if !all.get_hostaddrs().is_empty() {
            return Err(bad("must name hosts, not hostaddr".to_owned()));
        }
        if all.get_ssl_mode() == SslMode::Require && !self.tls {
            return Err(bad(
                "asks for sslmode=require: use the setting tls instead".to_owned()
            ));
        }
        let ports = all.get_ports();
        if ports.len() > 1 && ports.len() != all.get_hosts().len() {
            return Err(bad("must have one port for each host, or one".to_owned()));
        }
        let hosts = all.get_hosts().iter().enumerate().map(|(number, host)| {
            let mut one = tokio_postgres::Config::new();
            match host {
                Host::Tcp(name) => one.host(name),
                Host::Unix(folder) => one.host_path(folder),
            };
            one.port(*ports.get(number).or(ports.first()).unwrap_or(&5432));
            all.get_user().map(|user| one.user(user));
            all.get_dbname().map(|name| one.dbname(name));
            all.get_options().map(|options| one.options(options));
            let password = self.password.as_ref().map(String::as_bytes);
            let password = password.or(all.get_password());
            password.map(|password| one.password(password));
            one.application_name(all.get_application_name().unwrap_or("hark"));
            one.ssl_mode(if self.tls {
                SslMode::Require
            } else {
                SslMode::Disable
            });
            one.channel_binding(all.get_channel_binding());
            one.target_session_attrs(tokio_postgres::config::TargetSessionAttrs::ReadWrite);
            one.connect_timeout(self.connect_timeout);
            one.tcp_user_timeout(self.statement_timeout);
            one.keepalives_idle(Duration::from_secs(30));
            one
        });
        Ok(hosts.collect())
    }
}
