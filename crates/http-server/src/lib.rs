//! An HTTP server that can face strangers, and a small HTTP client for calls between the services.
//!
//! The server has limits for each client, time limits, TLS, HTTP/2, problem+json (RFC 9457), checks of
//! origins and hosts, and health and metrics for operators. It knows nothing of chat, and it is not a
//! framework: a service gives it an axum router.
//!
//! ```no_run
//! use std::time::Duration;
//! use http_server::{http, router};
//! use service_kit::lifecycle::Lifecycle;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let lifecycle = Lifecycle::new();
//! lifecycle.install_signals()?;
//! let listener = http::bind("127.0.0.1:8080".parse()?)?;
//! let router = router::layered(axum::Router::new());
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
pub mod http;
pub mod http_client;
pub mod identify;
pub mod operations;
pub mod problem;
pub mod router;
