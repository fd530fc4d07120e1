//! The `broker` command: the embedded MQTT broker on its own.

use std::process::ExitCode;

use broker::{Broker, Config};
use clap::Parser;
use service_kit::command::{self, Failure, ServiceArguments};
use service_kit::{http, lifecycle::Lifecycle, operations::Operations, telemetry};

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
    telemetry::init(&config.log)?;
    http::raise_file_limit().map_err(Failure::failed)?;
    let lifecycle = Lifecycle::new();
    lifecycle.install_signals().map_err(Failure::failed)?;
    let ops = http::bind(config.operations.listen).map_err(Failure::failed)?;
    let ops_address = ops.local_addr().map_err(Failure::failed)?;
    let broker = match Broker::bind(config.broker).await {
        Ok(broker) => broker,
        Err(error) if error.is_config() => return Err(Failure::usage(error)),
        Err(error) => return Err(Failure::failed(error)),
    };
    let operations = Operations::new();
    broker.register(&operations);
    command::serve_operations(ops, &operations, &lifecycle);
    command::announce(&[
        ("mqtt", format!("mqtt://{}", broker.local_addr())),
        ("ops", format!("http://{ops_address}")),
    ])?;
    let ran = broker.run(&lifecycle).await;
    lifecycle.shutdown();
    command::wait(&lifecycle).await?;
    ran.map_err(Failure::failed)
}
