//! The whole chain under test: real processes, real sockets, real crashes.
//!
//! The tests are in `tests/`, one file a theme; this library is what they
//! share. It depends on none of the services: it starts the binaries that
//! `cargo build --workspace --bins --tests` has put beside the tests, and speaks to
//! them as strangers do. `cargo xtask test` builds and runs everything.
#![warn(missing_docs)]

mod broker_check;
mod chain;
mod cluster;
mod deploy;
mod hark;
mod honest_pair;
mod load;
mod node;
mod seed;
mod sender;

pub use broker_check::{broker_is_well, broker_trouble};
pub use chain::Chain;
pub use cluster::{Broker, Cluster, Front, Link, Links, Size};
pub use deploy::{deploy, example};
pub use hark::{Hark, hark};
pub use honest_pair::HonestPair;
pub use load::Load;
pub use node::Node;
pub use seed::seeded_random;
pub use sender::{Posted, Sender};

/// A channel that no other test uses.
#[must_use]
pub fn new_channel() -> String {
    uuid::Uuid::new_v4().to_string()
}
