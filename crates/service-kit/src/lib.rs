//! The parts that every Hark program needs and that have nothing to do with chat or HTTP:
//! configuration, logging, starting and stopping tasks, and TLS certificates.
//!
//! It is not a framework. Each service writes out its own `Config::load → Server::bind → run` and
//! uses these parts.
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
pub mod systemd;
pub mod telemetry;
pub mod tls;
