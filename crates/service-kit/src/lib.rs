//! What every service of Hark needs and what has nothing to do with chat: configuration, telemetry,
//! shutdown, an HTTP server that strangers may talk to, problem+json, CORS, health and metrics, and
//! whom to trust as a client of TLS.
//!
//! It is not a framework: a service is `Config::load → Server::bind → run`, written out in the
//! service, with these parts.
//!
//! ```no_run
//! use std::time::Duration;
//! use service_kit::{http, lifecycle::Lifecycle, problem};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let lifecycle = Lifecycle::new();
//! lifecycle.install_signals()?;
//! let listener = http::bind("127.0.0.1:8080".parse()?)?;
//! let router = problem::layered(axum::Router::new());
//! let server = lifecycle.clone();
//! lifecycle.spawn("http", async move {
//!     http::serve(listener, router, http::HttpOptions::default(), &server).await;
//! });
//! lifecycle.wait(Duration::from_secs(20)).await?;
//! # Ok(())
//! # }
//! ```
#![warn(missing_docs)]

pub mod access;
mod around;
pub mod client_address;
pub mod clock;
pub mod command;
pub mod config;
pub mod http;
pub mod http_client;
pub mod lifecycle;
pub mod log_limit;
pub mod operations;
pub mod problem;
pub mod service_manager;
pub mod telemetry;
pub mod tls;
