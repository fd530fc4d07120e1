//! The embedded MQTT broker: rumqttd, started, watched and shielded so that it can be trusted with
//! a laptop or one machine.
//!
//! It is not a production broker: no users, no persistence, no cluster, and memory for a filter is
//! never freed. It listens on loopback only unless told otherwise. This is the only crate that
//! knows rumqttd.
//!
//! ```no_run
//! use broker::{Broker, BrokerConfig};
//! use service_kit::lifecycle::Lifecycle;
//!
//! # async fn example() -> Result<(), broker::BrokerError> {
//! let lifecycle = Lifecycle::new();
//! let broker = Broker::bind(BrokerConfig::default()).await?;
//! println!("mqtt mqtt://{}", broker.local_addr());
//! broker.run(&lifecycle).await
//! # }
//! ```
#![warn(missing_docs)]

mod config;
mod guard;
mod metrics;
mod probe;
mod server;

pub use config::{BrokerConfig, Config, OperationsConfig};
pub use server::{Broker, BrokerError};
