//! The `broadcast-sse` command: the service on its own.

use std::process::ExitCode;

use broadcast_sse::{Config, Server, StartError};
use clap::Parser;
use service_command::{self as command, Failure, Process, ServiceArguments};

/// Streams the messages of channels to browsers as server-sent events.
#[derive(Parser)]
#[command(name = "broadcast-sse", version)]
struct Arguments {
    #[command(flatten)]
    service: ServiceArguments,
}

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    let process = Process::begin(&config.log, config.operations.listen)?;
    let allowed_hosts = config.access.allowed_hosts.clone();
    let server = Server::bind(config, process.operations.clone()).map_err(|error| match error {
        StartError::Config(_) => Failure::usage(error),
        _ => Failure::failed(error),
    })?;
    let addresses = [
        ("sse", server.url()),
        ("ops", process.operations_url.clone()),
    ];
    let lifecycle = process.lifecycle.clone();
    process.serve_operations(&lifecycle, Some(&allowed_hosts));
    lifecycle.spawn("broadcast-sse", server.run(lifecycle.clone()));
    command::announce(&addresses)?;
    command::wait(&lifecycle).await
}
