//! The `broker` command: the embedded MQTT broker on its own.

use std::process::ExitCode;

use broker::{Broker, Config};
use clap::Parser;
use service_command::{self as command, Failure, Process, ServiceArguments};

/// Embedded MQTT broker for development: loopback only, nothing kept.
#[derive(Parser)]
#[command(name = "broker", version)]
struct Arguments {
    #[command(flatten)]
    service: ServiceArguments,
}

fn main() -> ExitCode {
    command::run("broker", |arguments: Arguments| run(arguments.service))
}

async fn run(arguments: ServiceArguments) -> Result<(), Failure> {
    let config = Config::load(arguments.config.as_deref(), std::env::vars())?;
    if arguments.print_config {
        return command::print_config(&config);
    }
    let process = Process::begin(&config.log, config.operations.listen)?;
    let broker = match Broker::bind(config.broker).await {
        Ok(broker) => broker,
        Err(error) if error.is_config() => return Err(Failure::usage(error)),
        Err(error) => return Err(Failure::failed(error)),
    };
    broker.register(&process.operations);
    let addresses = [
        ("mqtt", format!("mqtt://{}", broker.local_addr())),
        ("ops", process.operations_url.clone()),
    ];
    let lifecycle = process.lifecycle.clone();
    process.serve_operations(&lifecycle, None);
    command::announce(&addresses)?;
    broker.run(&lifecycle).await;
    command::wait(&lifecycle).await
}
