//! What the tests of Hark are written with: real processes, a server-sent
//! events client that behaves as a browser does, a TCP proxy that breaks
//! connections on demand, a real mosquitto, a real PostgreSQL, and [`eventually!`].
//!
//! It is a dev-dependency only and knows none of the services: it speaks to
//! them as strangers do. In particular it parses events by itself instead of
//! using `chat-model`, so that a mistake there cannot hide itself.
//!
//! Nothing here skips: a missing tool panics with the Debian package to install.
//!
//! ```
//! use std::time::Duration;
//! use test_kit::{ensure, eventually};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let mut tries = 0;
//! eventually!(Duration::from_secs(5), {
//!     tries += 1;
//!     ensure!(tries == 3, "only {tries} tries so far");
//!     Ok(())
//! });
//! assert_eq!(tries, 3);
//! # });
//! ```
#![warn(missing_docs)]

mod broker_cluster;
mod certificates;
mod eventually;
mod free_address;
mod guarded_folder;
mod http2;
mod ledger;
mod listener;
mod mosquitto;
mod mqtt;
mod nats;
mod postgres;
mod process;
mod program;
mod proxy;
mod rabbitmq;
mod recording;
mod sse;

pub use broker_cluster::BrokerCluster;
pub use certificates::Certificates;
pub use eventually::{Attempt, Attempts, Unmet};
pub use free_address::free_address;
pub use http2::{Http2, Unread};
pub use ledger::{Delivered, Gap, Ledger};
pub use listener::{GaveUp, Listener, open_without_reading};
pub use mosquitto::Mosquitto;
pub use mqtt::mqtt_publish;
pub use postgres::Postgres;
pub use process::Process;
pub use program::{Finished, Program};
pub use proxy::FaultProxy;
pub use recording::Recording;
pub use sse::Event;
