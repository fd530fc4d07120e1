//! What the commands of all services share: arguments, exit statuses, and the lines that say where a
//! service listens.

use std::fmt::Display;
use std::future::Future;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser};
use http_server::access::AccessPolicy;
use http_server::http::{self, HttpOptions};
use http_server::operations::Operations;
use serde::Serialize;
use service_kit::config::{self, ConfigError};
use service_kit::lifecycle::Lifecycle;
use service_kit::systemd;
use service_kit::telemetry::{self, LogConfig, TelemetryError};
use tokio::net::TcpListener;

/// How long a soft shutdown may take before it becomes a hard one.
const SOFT_SHUTDOWN: Duration = Duration::from_secs(10);

/// The arguments of a service that runs alone.
#[derive(Args, Clone, Debug)]
pub struct ServiceArguments {
    /// Configuration file (TOML); HARK_… environment variables override it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the configuration that would be used, and exit.
    #[arg(long)]
    pub print_config: bool,
}

/// Why a command exits with a status other than 0. The text says what to do.
#[derive(Debug)]
pub enum Failure {
    /// Wrong usage or configuration: exit status 64 (`EX_USAGE` of sysexits.h).
    Usage(String),
    /// Anything else: exit status 1.
    Failed(String),
}

impl Failure {
    /// A failure that is not caused by usage or configuration.
    pub fn failed(why: impl Display) -> Self {
        Self::Failed(why.to_string())
    }

    /// A failure caused by usage or configuration.
    pub fn usage(why: impl Display) -> Self {
        Self::Usage(why.to_string())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::usage(error)
    }
}

impl From<TelemetryError> for Failure {
    fn from(error: TelemetryError) -> Self {
        Self::usage(error)
    }
}

/// Parses the arguments and runs the command on a runtime with one thread per core.
pub fn run<A, F>(name: &str, command: impl FnOnce(A) -> F) -> ExitCode
where
    A: Parser,
    F: Future<Output = Result<(), Failure>>,
{
    let arguments = match A::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // --help and --version also arrive here; they go to standard output and are not failures.
            let status = if error.use_stderr() { 64 } else { 0 };
            return match error.print() {
                Ok(()) => ExitCode::from(status),
                Err(_closed) => ExitCode::FAILURE,
            };
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(command(arguments));
            // Tasks that still run after a hard shutdown must not delay the exit.
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(Failure::failed(format!("cannot start a runtime: {error}"))),
    };
    let (sentence, status) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Usage(sentence)) => (sentence, 64),
        Err(Failure::Failed(sentence)) => (sentence, 1),
    };
    eprintln!("{name}: {sentence}");
    ExitCode::from(status)
}

/// Prints a configuration as TOML.
///
/// # Errors
/// When it contains something that TOML cannot express.
pub fn print_config(config: &impl Serialize) -> Result<(), Failure> {
    print(&config::render(config)?)
}

/// Prints one line per address and then `ready`, which scripts wait for, and notifies the service
/// manager.
///
/// # Errors
/// When standard output is closed, or the service manager's socket cannot be reached.
pub fn announce(addresses: &[(&str, String)]) -> Result<(), Failure> {
    print(&format!("{}ready\n", lines(addresses)))?;
    systemd::ready(std::env::var_os("NOTIFY_SOCKET").as_deref())
        .map_err(|error| Failure::failed(format!("cannot reach NOTIFY_SOCKET: {error}")))
}

/// Prints suggestions for people, after the lines that scripts read.
///
/// # Errors
/// When standard output is closed.
pub fn suggest(steps: &[(&str, String)]) -> Result<(), Failure> {
    print(&lines(steps))
}

fn lines(pairs: &[(&str, String)]) -> String {
    let line = |(name, value): &(&str, String)| format!("{name} {value}\n");
    pairs.iter().map(line).collect()
}

fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Failure::failed(format!("cannot write to standard output: {error}")))
}

/// What every process has from the start: logging, signals, and the operators' listener.
pub struct Process {
    /// The lifecycle of the process. The first signal begins its shutdown.
    pub lifecycle: Lifecycle,
    /// Metrics and readiness checks, to which the services add theirs.
    pub operations: Operations,
    /// The operators' listener, as a URL.
    pub operations_url: String,
    listener: TcpListener,
    address: SocketAddr,
}

impl Process {
    /// Starts logging, raises the file limit, installs the signal handlers and binds the operators'
    /// listener.
    ///
    /// # Errors
    /// When one of these fails. The text says what to do.
    pub fn begin(log: &LogConfig, operations: SocketAddr) -> Result<Self, Failure> {
        telemetry::init(log)?;
        http::raise_file_limit().map_err(Failure::failed)?;
        let lifecycle = Lifecycle::new();
        lifecycle.install_signals().map_err(Failure::failed)?;
        let listener = http::bind(operations)
            .map_err(|error| Failure::failed(format!("{error}: setting `operations.listen`")))?;
        let address = listener.local_addr().map_err(Failure::failed)?;
        Ok(Self {
            lifecycle,
            operations: Operations::new(),
            operations_url: format!("http://{address}"),
            listener,
            address,
        })
    }

    /// Serves the operators' listener as long as `stage` lasts. On loopback it answers only for loopback's
    /// own names and for `allowed_hosts`, from the service's configuration, if there are any.
    pub fn serve_operations(self, stage: &Lifecycle, allowed_hosts: Option<&[String]>) {
        let (router, life) = (self.operations.router(), stage.clone());
        // Strangers' pages must not read metrics through a name that points to loopback (DNS
        // rebinding). On other addresses, operators may know this machine by any name.
        let router = if self.address.ip().to_canonical().is_loopback() {
            AccessPolicy::of_operators(allowed_hosts).layer(router)
        } else {
            router
        };
        stage.spawn("operations", async move {
            http::serve(self.listener, router, HttpOptions::default(), &life).await;
        });
    }
}

/// Waits for the end of the process.
///
/// # Errors
/// When a task died that should have run until the end.
pub async fn wait(lifecycle: &Lifecycle) -> Result<(), Failure> {
    lifecycle.wait(SOFT_SHUTDOWN).await.map_err(Failure::failed)
}
