//! What is done to a store while its services do not run.

use std::path::Path;

use chat_service::{Config, StoreConfig};
use service_kit::{clock::SystemClock, command::Failure};

use crate::cli::{Migrate, NewEpoch};

pub(crate) async fn new_epoch(options: NewEpoch) -> Result<(), Failure> {
    let clock = SystemClock::shared();
    let logs = match options.data {
        Some(folder) => chat_store::new_epoch(&folder, &clock),
        None => store(options.config.as_deref())?.new_epoch(clock).await,
    };
    let logs = logs.map_err(Failure::failed)?;
    println!("{logs} logs have a new epoch");
    Ok(())
}

pub(crate) async fn migrate(options: Migrate) -> Result<(), Failure> {
    let store = store(options.config.as_deref())?;
    let migrated = store.migrate(SystemClock::shared()).await;
    migrated.map_err(Failure::failed)?;
    println!("the store has today's format");
    Ok(())
}

/// Where the chat-service of a configuration keeps its messages.
fn store(file: Option<&Path>) -> Result<StoreConfig, Failure> {
    Ok(Config::load(file, std::env::vars())?.store)
}
