//! The `chat-service` command: the service on its own.

use std::process::ExitCode;

use chat_service::{Config, Server, StartError};
use clap::Parser;
use clock::SystemClock;
use service_command::{self as command, Failure, Process, ServiceArguments};

/// Takes messages over REST, stores them, publishes them over MQTT.
#[derive(Parser)]
#[command(name = "chat-service", version)]
struct Arguments {
    #[command(flatten)]
    service: ServiceArguments,
}

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    command::run(
        "chat-service",
        |arguments: Arguments| run(arguments.service),
    )
}

async fn run(arguments: ServiceArguments) -> Result<(), Failure> {
    let config = Config::load(arguments.config.as_deref(), std::env::vars())?;
    if arguments.print_config {
        return command::print_config(&config);
    }
    let process = Process::begin(&config.log, config.operations.listen)?;
    let allowed_hosts = config.access.allowed_hosts.clone();
    let server = Server::bind(config, SystemClock::shared(), process.operations.clone()).await;
    let server = server.map_err(|error| match error {
        StartError::Config(error) => error.into(),
        error => Failure::failed(error),
    })?;
    let addresses = [
        ("chat", server.url()),
        ("ops", process.operations_url.clone()),
    ];
    let life = process.lifecycle.clone();
    // The operators' listener stays until the end, so that a shutdown can be watched.
    let later = life.later_stage();
    process.serve_operations(&later, Some(&allowed_hosts));
    let running = life.clone();
    life.spawn("chat-service", async move {
        server.run(running).await;
        later.shutdown();
    });
    command::announce(&addresses)?;
    command::wait(&life).await
}
