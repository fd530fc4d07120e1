use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::OnceCell;

use crate::free_address::free_address;
use crate::{ensure, eventually};

mod damage;
mod folder;
mod programs;
mod replica;
mod tls;

use folder::Folder;
use programs::program;

/// How long a start, a stop or a command may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Settings that differ from those of PostgreSQL itself. `fsync` stays on: a
/// store under test must pay for what it promises.
const SETTINGS: [(&str, &str); 6] = [
    ("listen_addresses", "127.0.0.1"),
    // Many tests of one process share one.
    ("max_connections", "300"),
    ("shared_buffers", "64MB"),
    // In the data folder, where a crash leaves nothing behind on the machine.
    ("dynamic_shared_memory_type", "mmap"),
    ("max_wal_senders", "10"),
    ("wal_keep_size", "256MB"),
];

/// A real PostgreSQL (Debian package `postgresql`) on a port of its own, in a
/// temporary folder. It ends when it is dropped, and with the test process,
/// however that ends, so that it may be kept in a static.
///
/// Over TCP it asks for the [password](Self::PASSWORD) (SCRAM).
pub struct Postgres {
    folder: Folder,
    address: SocketAddr,
    postmaster: Option<Child>,
    databases: AtomicUsize,
}

impl Postgres {
    /// The superuser of every cluster.
    pub const USER: &str = "postgres";
    /// The password of [`USER`](Self::USER).
    pub const PASSWORD: &str = "hark-test";

    /// The one that all tests of this process share; for tests that break
    /// nothing and have a [database](Self::database) of their own.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Postgres> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    /// Starts one and waits until it accepts connections.
    ///
    /// # Panics
    /// When PostgreSQL is not installed or does not start.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts one with these further settings of `postgresql.conf`.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn start_with(settings: &[(&str, &str)]) -> Self {
        let folder = Folder::new();
        Self::prepare(&folder, settings).await;
        Self::of(folder).await
    }

    /// Makes an empty cluster in the folder.
    async fn prepare(folder: &Folder, settings: &[(&str, &str)]) {
        let password = folder.path().join("password");
        std::fs::write(&password, Self::PASSWORD).expect("write the password");
        let mut initdb = program("initdb");
        initdb
            .arg("--pgdata")
            .arg(folder.data())
            .arg("--pwfile")
            .arg(&password);
        initdb.args(["--username", Self::USER, "--encoding", "UTF8"]);
        initdb.args(["--locale", "C", "--auth-local", "trust"]);
        initdb.args(["--auth-host", "scram-sha-256", "--no-sync"]);
        programs::run(initdb).await;
        let mut lines = String::new();
        for (name, value) in SETTINGS.iter().chain(settings) {
            lines += &format!("{name} = '{value}'\n");
        }
        folder.append("postgresql.conf", &lines);
    }

    /// Starts what lies in the folder, on a free port.
    async fn of(folder: Folder) -> Self {
        let address = free_address();
        let socket_folder = folder.path().display();
        let port = address.port();
        folder.append(
            "postgresql.conf",
            &format!("port = {port}\nunix_socket_directories = '{socket_folder}'\n"),
        );
        let mut postgres = Self {
            folder,
            address,
            postmaster: None,
            databases: AtomicUsize::new(0),
        };
        postgres.restart().await;
        postgres
    }

    /// Where it listens; the same after [`restart`](Self::restart).
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a database of it, with user and password.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        Self::url_at(self.address, database)
    }

    /// The URL of a database behind this address, such as that of a
    /// [`FaultProxy`](crate::FaultProxy), with user and password.
    #[must_use]
    pub fn url_at(address: SocketAddr, database: &str) -> String {
        let (user, password) = (Self::USER, Self::PASSWORD);
        format!("postgres://{user}:{password}@{address}/{database}")
    }

    /// The URL of a new, empty database.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn database(&self) -> String {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{number}");
        self.run("postgres", &format!("CREATE DATABASE {name}"))
            .await;
        self.url(&name)
    }

    /// Runs SQL as superuser over a connection that no test breaks, and returns
    /// the rows: a line each, values separated by `|`.
    ///
    /// # Panics
    /// When PostgreSQL refuses it, or is away.
    pub async fn run(&self, database: &str, sql: &str) -> String {
        let rows = self.try_run(database, sql).await;
        rows.unwrap_or_else(|why| panic!("{why}"))
    }

    /// The same, of a server that may be away.
    ///
    /// # Errors
    /// What PostgreSQL or its client says.
    pub async fn try_run(&self, database: &str, sql: &str) -> Result<String, String> {
        let mut psql = program("psql");
        psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"]);
        psql.args(["--set", "ON_ERROR_STOP=1", "--username", Self::USER]);
        psql.arg("--host").arg(self.folder.path());
        psql.args(["--port", &self.address.port().to_string()]);
        psql.args(["--dbname", database, "--command", sql]);
        let rows = programs::try_run(psql).await?;
        Ok(rows.trim_end().to_owned())
    }

    /// The pid of the postmaster.
    ///
    /// # Panics
    /// When it was killed or stopped.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.postmaster.as_ref().expect("a running postmaster").id()
    }

    /// Kills all of its processes at once, as the machine's crash would, and
    /// waits until they are gone.
    ///
    /// # Panics
    /// When they do not go.
    pub async fn kill(&mut self) {
        let Some(mut postmaster) = self.postmaster.take() else {
            return;
        };
        // Stopped first, so that it cannot start another while its children die.
        signal(&mut postmaster, Signal::STOP);
        let children = programs::children(postmaster.id());
        for pid in &children {
            programs::signal(*pid, Signal::KILL);
        }
        signal(&mut postmaster, Signal::KILL);
        ended(&mut postmaster).await;
        eventually!(PATIENCE, {
            let left = children.iter().find(|pid| programs::is_running(**pid));
            ensure!(left.is_none(), "process {left:?} is still there");
            Ok(())
        });
        self.folder.forget_server();
    }

    /// Stops it in order: sessions are ended, everything is written.
    ///
    /// # Panics
    /// When it does not stop; a replica that takes nothing holds it up.
    pub async fn stop(&mut self) {
        if let Some(mut postmaster) = self.postmaster.take() {
            // "Fast shutdown" in PostgreSQL's terms.
            signal(&mut postmaster, Signal::INT);
            ended(&mut postmaster).await;
        }
    }

    /// Whether it has ended by itself, or was killed by somebody else.
    pub fn has_ended(&mut self) -> bool {
        self.postmaster.as_mut().and_then(has_ended).is_some()
    }

    /// Kills it if it runs, starts it on the same port, and waits until it
    /// accepts connections.
    ///
    /// # Panics
    /// When it does not; with its log.
    pub async fn restart(&mut self) {
        self.kill().await;
        self.launch();
        eventually!(PATIENCE, {
            if self.has_ended() {
                // It refuses to start while a process of the one before still runs.
                self.launch();
                return Err(format!("it ended: {}", self.log()).into());
            }
            let mut ready = program("pg_isready");
            ready.args(["--quiet", "--host"]).arg(self.folder.path());
            ready.args(["--port", &self.address.port().to_string()]);
            let status = ready.status().await?;
            ensure!(status.success(), "pg_isready: {status}\n{}", self.log());
            Ok(())
        });
    }

    /// Starts it on the same port and waits for nothing.
    fn launch(&mut self) {
        let log = File::options()
            .append(true)
            .create(true)
            .open(self.folder.log())
            .expect("open the log");
        let mut server = programs::lasting("postgres");
        server.arg("-D").arg(self.folder.data());
        server.stdin(Stdio::null()).stdout(Stdio::null());
        let started = server.stderr(log).spawn();
        self.postmaster = Some(started.expect("PostgreSQL can be started"));
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        // One that has not started yet has none.
        std::fs::read_to_string(self.folder.log()).unwrap_or_default()
    }

    /// Its folder, with everything that it keeps.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let newest: Vec<_> = log.lines().rev().take(40).collect();
            let newest: Vec<_> = newest.into_iter().rev().collect();
            eprintln!("--- log of PostgreSQL at {}:", self.address);
            eprintln!("{}", newest.join("\n"));
        }
        if let Some(mut postmaster) = self.postmaster.take() {
            // "Immediate shutdown": nothing here is worth writing.
            signal(&mut postmaster, Signal::QUIT);
            // It ends by itself within seconds, and its watcher sees to it otherwise.
            let _ended = postmaster.wait();
        }
    }
}

/// Nothing, when it has been waited for: its pid may be another's.
fn signal(child: &mut Child, signal: Signal) {
    if has_ended(child).is_none() {
        programs::signal(child.id(), signal);
    }
}

async fn ended(child: &mut Child) {
    eventually!(PATIENCE, {
        ensure!(has_ended(child).is_some(), "the postmaster still runs");
        Ok(())
    });
}

fn has_ended(child: &mut Child) -> Option<ExitStatus> {
    child.try_wait().expect("a child can be waited for")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn databases_are_separate_and_ask_for_a_password() {
        let postgres = Postgres::shared().await;
        let (one, other) = (postgres.database().await, postgres.database().await);
        assert_ne!(one, other);
        let over_tcp = |url: String| async move {
            let mut psql = program("psql");
            psql.args(["--no-psqlrc", "-Atc", "SELECT 1", &url]);
            psql.env("PGCONNECT_TIMEOUT", "10").output().await.unwrap()
        };
        assert!(over_tcp(one.clone()).await.status.success());
        let wrong = one.replace(Postgres::PASSWORD, "wrong");
        assert!(!over_tcp(wrong).await.status.success());
    }

    #[tokio::test]
    async fn what_was_committed_survives_a_kill() {
        let mut postgres = Postgres::start().await;
        let address = postgres.address();
        postgres.run("postgres", "CREATE TABLE t (n int)").await;
        postgres.run("postgres", "INSERT INTO t VALUES (7)").await;
        postgres.kill().await;
        postgres.restart().await;
        assert_eq!(postgres.run("postgres", "SELECT n FROM t").await, "7");
        postgres.stop().await;
        postgres.restart().await;
        assert_eq!(postgres.run("postgres", "SELECT n FROM t").await, "7");
        assert_eq!(postgres.address(), address);
    }

    #[tokio::test]
    async fn it_is_gone_when_it_is_dropped() {
        let postgres = Postgres::start().await;
        let (pid, folder) = (postgres.pid(), postgres.folder().to_owned());
        drop(postgres);
        eventually!(PATIENCE, {
            ensure!(!programs::is_running(pid), "it runs");
            ensure!(!folder.exists(), "its folder is there");
            Ok(())
        });
    }
}
