//! The `hark` command: runs all of Hark in one process, and has commands for its API and its store.

mod cli;
mod client;
mod config;
mod demo;
mod doctor;
mod new_channel;
mod store_commands;
mod up;

use std::process::ExitCode;

use service_command::{self as command, Failure};

use cli::{Arguments, Command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    command::run("hark", run)
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments.command.unwrap_or(Command::Up(arguments.up)) {
        Command::Up(options) => up::run(options).await,
        Command::New(options) => new_channel::new(&options),
        Command::Post(options) => client::post(options).await,
        Command::Listen(options) => client::listen(options).await,
        Command::Health(options) => client::health(options).await,
        Command::Doctor(options) => doctor::run(options).await,
        Command::NewEpoch(options) => store_commands::new_epoch(options).await,
        Command::Backup(options) => store_commands::backup(options).await,
        Command::Restore(options) => store_commands::restore(options).await,
        Command::Check(options) => store_commands::check(options).await,
        Command::Migrate(options) => store_commands::migrate(options).await,
    }
}
