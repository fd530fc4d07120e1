//! chat-service: takes messages over REST, stores them, and publishes them to the MQTT topic of
//! their channel.
//!
//! The path of a post: `rest` routes it, `rest/post` reads and checks it, `ingest` stores it, and the
//! answer is sent. `outbox` follows what the store commits and publishes it. The log itself is the
//! outbox, so nothing that was answered with 2xx can be forgotten, whatever crashes.
//!
//! Listeners do not connect here but to `broadcast-sse`. The two share only the wire contract
//! (`docs/protocol.md`).
//!
//! ```no_run
//! use chat_service::{Config, Server};
//! use clock::SystemClock;
//! use http_server::operations::Operations;
//! use service_kit::lifecycle::Lifecycle;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config::load(None, std::env::vars())?;
//! let lifecycle = Lifecycle::new();
//! lifecycle.install_signals()?;
//! let server = Server::bind(config, SystemClock::shared(), Operations::new()).await?;
//! println!("chat http://{}", server.local_addr());
//! lifecycle.spawn("chat-service", server.run(lifecycle.clone()));
//! lifecycle.wait(std::time::Duration::from_secs(10)).await?;
//! # Ok(())
//! # }
//! ```
#![warn(missing_docs)]

mod budget;
mod config;
mod failure;
mod ingest;
mod metrics;
mod outbox;
mod rate_limit;
mod reads;
mod rest;
mod server;
mod store;
#[cfg(test)]
mod tests;

pub use config::{Config, HttpConfig, LimitsConfig, OperationsConfig, OutboxConfig, default_toml};
pub use server::{Server, StartError};
pub use store::{DatabaseUrl, Engine, PostgresConfig, StoreConfig};
