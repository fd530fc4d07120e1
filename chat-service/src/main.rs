//! The `chat-service` binary: arguments, configuration, logging, start, exit status.

use std::path::PathBuf;
use std::process::ExitCode;

use chat_service::{Config, SHUTDOWN_TIME, Server};
use clap::Parser;
use service_kit::clock::SystemClock;
use service_kit::http::{self, HttpOptions};
use service_kit::lifecycle::Lifecycle;
use service_kit::operations::Operations;
use service_kit::{config, telemetry};

/// Bad usage or configuration (`EX_USAGE` of sysexits).
const BAD_USAGE: u8 = 64;

/// Takes messages over REST, stores them, publishes them over MQTT.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Configuration file (TOML); HARK_… variables override it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the configuration that would be used, and exit.
    #[arg(long)]
    print_config: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // --help and --version are no errors, and a closed output is nobody's loss.
            let _printed = error.print();
            return if error.use_stderr() {
                BAD_USAGE.into()
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let loaded = Config::load(arguments.config.as_deref(), std::env::vars());
    let config = match loaded.and_then(|config| Ok((config::render(&config)?, config))) {
        Ok((text, _)) if arguments.print_config => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Ok((_, config)) => config,
        Err(error) => {
            eprintln!("chat-service: {error}");
            return BAD_USAGE.into();
        }
    };
    if let Err(error) = telemetry::init(&config.log) {
        eprintln!("chat-service: {error}");
        return BAD_USAGE.into();
    }
    match run(config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chat-service: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    http::raise_file_limit()?;
    let life = Lifecycle::new();
    life.install_signals()?;
    let operations = Operations::new();
    let operations_listener = http::bind(config.operations.listen)?;
    let operations_addr = operations_listener.local_addr()?;
    let server = Server::bind(config, SystemClock::shared(), operations.clone()).await?;
    println!("chat http://{}", server.local_addr());
    println!("ops http://{operations_addr}");
    // The operations listener stays to the end, so that a shutdown can be watched.
    let later = life.later_stage();
    let serving = later.clone();
    later.spawn("operations", async move {
        let router = operations.router();
        http::serve(
            operations_listener,
            router,
            HttpOptions::default(),
            &serving,
        )
        .await;
    });
    let running = life.clone();
    life.spawn("chat-service", async move {
        server.run(running).await;
        later.shutdown();
    });
    println!("ready");
    life.wait(SHUTDOWN_TIME).await?;
    Ok(())
}
