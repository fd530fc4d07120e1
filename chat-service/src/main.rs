//! The `chat-service` command: the service on its own.

use std::process::ExitCode;

use chat_service::{Config, Server, StartError};
use clap::Parser;
use service_kit::clock::SystemClock;
use service_kit::command::{self, Failure, ServiceArguments};
use service_kit::lifecycle::Lifecycle;
use service_kit::operations::Operations;
use service_kit::{http, telemetry};

/// Takes messages over REST, stores them, publishes them over MQTT.
#[derive(Parser)]
#[command(name = "chat-service", version)]
struct Arguments {
    #[command(flatten)]
    service: ServiceArguments,
}

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
    telemetry::init(&config.log)?;
    http::raise_file_limit().map_err(Failure::failed)?;
    let life = Lifecycle::new();
    life.install_signals().map_err(Failure::failed)?;
    let operations = Operations::new();
    let listener = http::bind(config.operations.listen).map_err(Failure::failed)?;
    let operations_addr = listener.local_addr().map_err(Failure::failed)?;
    let server = Server::bind(config, SystemClock::shared(), operations.clone()).await;
    let server = server.map_err(|error| match error {
        StartError::Config(error) => error.into(),
        error => Failure::failed(error),
    })?;
    let address = server.local_addr();
    // The operators' listener stays to the end, so that a shutdown can be watched.
    let later = life.later_stage();
    command::serve_operations(listener, &operations, &later);
    let running = life.clone();
    life.spawn("chat-service", async move {
        server.run(running).await;
        later.shutdown();
    });
    command::announce(&[
        ("chat", format!("http://{address}")),
        ("ops", format!("http://{operations_addr}")),
    ])?;
    command::wait(&life).await
}
