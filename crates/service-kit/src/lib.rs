//! What every program of Hark needs and what has nothing to do with chat or HTTP: configuration,
//! telemetry, the life of a process and its tasks, and whom to trust in TLS.
//!
//! It is not a framework: a service is `Config::load → Server::bind → run`, written out in the
//! service, with these parts.
//!
//! ```
//! use service_kit::lifecycle::Lifecycle;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let lifecycle = Lifecycle::new();
//! let soft = lifecycle.soft();
//! lifecycle.spawn("example", async move { soft.cancelled().await });
//! lifecycle.shutdown();
//! # }
//! ```
#![warn(missing_docs)]

pub mod config;
pub mod lifecycle;
pub mod log_limit;
pub mod service_manager;
pub mod telemetry;
pub mod tls;
