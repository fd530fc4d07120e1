//! The `broadcast-sse` command: the service on its own.

use std::process::ExitCode;

use broadcast_sse::{Config, Server, StartError};
use clap::Parser;
use service_kit::command::{self, Failure, ServiceArguments};
use service_kit::{http, lifecycle::Lifecycle, operations::Operations, telemetry};

/// Streams the messages of channels to browsers as server-sent events.
#[derive(Parser)]
#[command(name = "broadcast-sse", version)]
struct Arguments {
    #[command(flatten)]
    service: ServiceArguments,
}

fn main() -> ExitCode {
    command::run("broadcast-sse", |arguments: Arguments| {
        run(arguments.service)
    })
}

async fn run(arguments: ServiceArguments) -> Result<(), Failure> {
    let config = Config::load(arguments.config.as_deref(), std::env::vars())?;
    if arguments.print_config {
        return command::print_config(&config);
    }
    telemetry::init(&config.log)?;
    http::raise_file_limit().map_err(Failure::failed)?;
    let lifecycle = Lifecycle::new();
    lifecycle.install_signals().map_err(Failure::failed)?;
    let ops = http::bind(config.operations.listen).map_err(Failure::failed)?;
    let ops_address = ops.local_addr().map_err(Failure::failed)?;
    let operations = Operations::new();
    let server = Server::bind(config, operations.clone()).map_err(|error| match error {
        StartError::Config(_) => Failure::usage(error),
        _ => Failure::failed(error),
    })?;
    command::serve_operations(ops, &operations, &lifecycle);
    let addresses = [
        ("sse", format!("http://{}", server.local_addr())),
        ("ops", format!("http://{ops_address}")),
    ];
    lifecycle.spawn("broadcast-sse", server.run(lifecycle.clone()));
    command::announce(&addresses)?;
    command::wait(&lifecycle).await
}
