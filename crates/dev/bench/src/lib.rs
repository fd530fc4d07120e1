//! Measures Hark and other servers under the same load.
//!
//! The load generator ([`load`]) is one thread with one epoll. It checks every event that it
//! receives and says when it was the bottleneck itself. [`compare`] starts each server on one
//! processor ([`peers`]), puts the loads of [`scenario`] on it from another, reads its processor time and memory
//! from /proc ([`process`]), and prints tables of medians.
//!
//! It never builds or downloads a peer: one that is not there is listed as not installed.
//!
//! ```sh
//! cargo xtask bench --quick
//! ```
#![warn(missing_docs)]

mod baseline;
mod checks;
mod command;
mod compare;
mod configuration;
mod dialect;
mod feed;
mod floor;
mod histogram;
mod instructions;
mod load;
mod machine;
mod metrics;
mod netstat;
mod peers;
mod plot;
mod process;
mod record;
mod report;
mod response;
mod scaling;
mod scenario;
mod server;
mod spread;
mod stamp;

pub use command::run;
pub use instructions::{Function, count_instructions};
