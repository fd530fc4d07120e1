//! The `broker` command: the embedded MQTT broker on its own.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use broker::{Broker, BrokerError, Config};
use clap::Parser;
use service_kit::config::{self, ConfigError};
use service_kit::http::{self, BindError, HttpOptions};
use service_kit::lifecycle::{DeadTask, Lifecycle};
use service_kit::operations::Operations;
use service_kit::telemetry::{self, TelemetryError};

/// Embedded MQTT broker for development: loopback only, nothing kept.
#[derive(Parser)]
#[command(name = "broker", version)]
struct Arguments {
    /// Configuration file (TOML); HARK_… environment variables come after it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the configuration that would be used, and end.
    #[arg(long)]
    print_config: bool,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error(transparent)]
    Operations(#[from] BindError),
    #[error(transparent)]
    Task(#[from] DeadTask),
    #[error("{0}")]
    System(#[from] std::io::Error),
}

impl Failure {
    /// 64 for bad usage or configuration, else 1.
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) | Self::Telemetry(_) => ExitCode::from(64),
            Self::Broker(error) if error.is_config() => ExitCode::from(64),
            _ => ExitCode::FAILURE,
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Also --help and --version, which go to standard output and are no failure.
            let code = if error.use_stderr() { 64 } else { 0 };
            return match error.print() {
                Ok(()) => ExitCode::from(code),
                Err(_closed) => ExitCode::FAILURE,
            };
        }
    };
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("broker: {failure}");
            failure.exit_code()
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    let config = Config::load(arguments.config.as_deref(), std::env::vars())?;
    if arguments.print_config {
        print!("{}", config::render(&config)?);
        return Ok(());
    }
    telemetry::init(&config.log)?;
    http::raise_file_limit()?;
    let lifecycle = Lifecycle::new();
    lifecycle.install_signals()?;
    let listener = http::bind(config.operations.listen)?;
    let operations_address = listener.local_addr()?;
    let broker = Broker::bind(config.broker).await?;
    let operations = Operations::new();
    broker.register(&operations);
    let life = lifecycle.clone();
    lifecycle.spawn("operations", async move {
        http::serve(listener, operations.router(), HttpOptions::default(), &life).await;
    });
    let mut out = std::io::stdout().lock();
    writeln!(out, "mqtt mqtt://{}", broker.local_addr())?;
    writeln!(out, "ops http://{operations_address}\nready")?;
    out.flush()?;
    drop(out);
    let ran = broker.run(&lifecycle).await;
    lifecycle.shutdown();
    let waited = lifecycle.wait(Duration::from_secs(5)).await;
    ran?;
    Ok(waited?)
}
