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
//! broker.run(&lifecycle).await;
//! # Ok(())
//! # }
//! ```
#![warn(missing_docs)]

mod accept;
mod budget;
mod clients;
mod config;
mod connection;
mod conversation;
mod exactly_once;
mod guard;
mod link;
mod login;
mod metrics;
mod names;
mod outbox;
mod pace;
mod refusals;
mod router;
mod router_links;
mod server;
mod session;
mod shares;
mod state;
mod threads;
mod watch;
mod wire;

pub use config::{BrokerConfig, Config, OperationsConfig};
pub use login::OwnLogin;
pub use server::{Broker, BrokerError};
