//! How to reach the server that may write, and to bring a session into the state that the store relies on.

use std::error::Error;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::time::timeout;
use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::failure::{Failure, words};
use super::options::PostgresOptions;
use super::session::Session;
use crate::OpenError;

/// Beyond its own time-outs the server gets this long to tell of them.
const SLACK: Duration = Duration::from_secs(1);

/// How connections are made.
#[derive(Clone)]
pub(super) struct Connector {
    hosts: Vec<tokio_postgres::Config>,
    tls: Option<MakeRustlsConnect>,
    pub(super) options: PostgresOptions,
    /// Where the database is, in words without the password.
    pub(super) database: String,
    /// Drives the connections.
    pub(super) tasks: TaskTracker,
}

impl Connector {
    /// Checks the options; connects to nothing. Blocks for the file of certificates.
    pub(super) fn new(options: &PostgresOptions, tasks: TaskTracker) -> Result<Self, OpenError> {
        options.validate()?;
        let hosts = options.hosts()?;
        let tls = options
            .tls
            .then(|| service_kit::tls::client(options.ca_file.as_deref()))
            .transpose()
            .map_err(|error| OpenError::BadOption {
                option: "tls",
                reason: error.to_string(),
            })?
            .map(|config| MakeRustlsConnect::new(ClientConfig::clone(&config)));
        Ok(Self {
            database: describe(&hosts),
            hosts,
            tls,
            options: options.clone(),
            tasks,
        })
    }

    /// A session with the first server that lets itself be written to, whatever it holds.
    pub(super) async fn reach(&self) -> Result<Session, Failure> {
        let mut failed = Failure::Lost("no host".to_owned());
        for host in &self.hosts {
            // A server that is stopped takes connections and says nothing.
            let limit = self.options.connect_timeout;
            failed = match timeout(limit, self.reach_one(host)).await {
                Ok(Ok(session)) => return Ok(session),
                Ok(Err(failed)) => failed,
                Err(_) => Failure::Lost(format!(
                    "{} did not answer within {} ms",
                    describe(std::slice::from_ref(host)),
                    limit.as_millis()
                )),
            };
            tracing::debug!(
                host = describe(std::slice::from_ref(host)),
                ?failed,
                "not connected"
            );
        }
        Err(failed)
    }

    async fn reach_one(&self, host: &tokio_postgres::Config) -> Result<Session, Failure> {
        let refused = |error| self.judge(&error, host);
        let (client, driver) = match &self.tls {
            Some(tls) => {
                let (client, connection) = host.connect(tls.clone()).await.map_err(refused)?;
                (client, self.drive(connection))
            }
            None => {
                let (client, connection) = host.connect(NoTls).await.map_err(refused)?;
                (client, self.drive(connection))
            }
        };
        let session = Session::new(client, self.options.statement_timeout + SLACK, driver);
        session.run(&self.settings()).await?;
        #[cfg(test)]
        let session = session.stopped_by(&self.options.stops);
        Ok(session)
    }

    /// For reading and for retention: it is the writer that tests stop.
    pub(super) fn aside(&self) -> Self {
        Self {
            #[cfg(test)]
            options: PostgresOptions {
                stops: None,
                ..self.options.clone()
            },
            ..self.clone()
        }
    }

    fn drive<F>(&self, connection: F) -> AbortOnDropHandle<()>
    where
        F: Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
    {
        AbortOnDropHandle::new(self.tasks.spawn(async move {
            if let Err(error) = connection.await {
                // Whoever waits for an answer is told as well.
                tracing::debug!(error = words(&error), "connection to PostgreSQL ended");
            }
        }))
    }

    /// - Every statement finds its rows by an index: a plan that was made while a table was small
    ///   must not read all of it when it has grown. With that, plans are made once.
    /// - A commit is on the disk. Who has set more than `on` (`remote_apply`) keeps it.
    /// - A writer that is stopped in the middle of a transaction loses its locks.
    fn settings(&self) -> String {
        let idle = self.options.timing.idle_transaction.as_millis();
        let statement = self.options.statement_timeout.as_millis();
        // Below the other, so that it can be told what was waited for.
        let lock = statement * 4 / 5;
        format!(
            "SET search_path = hark;
             SET default_transaction_isolation = 'read committed';
             SET idle_in_transaction_session_timeout = {idle};
             SET statement_timeout = {statement};
             SET lock_timeout = {lock};
             SET tcp_user_timeout = {statement};
             SET enable_seqscan = off;
             SET plan_cache_mode = force_generic_plan;
             SET jit = off;
             SELECT set_config('synchronous_commit', 'on', false)
                WHERE current_setting('synchronous_commit') = 'off';"
        )
    }

    /// Whether a connection that was not made may be made later.
    fn judge(&self, error: &tokio_postgres::Error, host: &tokio_postgres::Config) -> Failure {
        let said = words(error);
        let place = describe(std::slice::from_ref(host));
        let advice = match error.code() {
            Some(&SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION) => {
                "check user, password and the server's pg_hba.conf"
            }
            Some(&SqlState::INVALID_CATALOG_NAME) => "create the database, or name another one",
            Some(&SqlState::INSUFFICIENT_PRIVILEGE) => "grant CONNECT on the database to the user",
            Some(_) => return Failure::Lost(format!("{place}: {said}")),
            None if said.starts_with("invalid configuration")
                || said.starts_with("authentication error") =>
            {
                "check user and password"
            }
            None if is_about_tls(error, &said) => {
                "check the setting tls, the certificates of the authority and the server's name"
            }
            None => return Failure::Lost(format!("{place}: {said}")),
        };
        self.refuse(format!("{place}: {said}; {advice}"))
    }

    /// What the server refuses of a statement that is needed to begin, it will refuse again.
    pub(super) fn explain(&self, failure: Failure, needed: &str) -> Failure {
        match failure {
            Failure::Refused(refusal) => self.refuse(format!("{}; {needed}", refusal.reason)),
            other => other,
        }
    }

    pub(super) fn refuse(&self, reason: String) -> Failure {
        Failure::Unusable(OpenError::UnusableDatabase {
            database: self.database.clone(),
            reason,
        })
    }
}

/// TLS that the other side refused, not one that a lost connection cut off.
fn is_about_tls(error: &tokio_postgres::Error, said: &str) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        // What TLS has to say comes inside of an error of I/O.
        let inside = error.downcast_ref().and_then(std::io::Error::get_ref);
        if inside.is_some_and(<dyn Error + Send + Sync>::is::<rustls::Error>) {
            return true;
        }
        cause = error.source();
    }
    said.contains("server does not support TLS")
}

/// `host:port,host:port/database`.
fn describe(hosts: &[tokio_postgres::Config]) -> String {
    use tokio_postgres::config::Host;
    let names = hosts.iter().map(|host| {
        let port = host.get_ports().first().copied().unwrap_or(5432);
        match host.get_hosts().first() {
            Some(Host::Tcp(name)) => format!("{name}:{port}"),
            Some(Host::Unix(folder)) => format!("{}:{port}", folder.display()),
            None => port.to_string(),
        }
    });
    let names: Vec<_> = names.collect();
    let database = hosts.first().and_then(|host| host.get_dbname());
    format!("{}/{}", names.join(","), database.unwrap_or("(default)"))
}
