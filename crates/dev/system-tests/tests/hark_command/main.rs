//! `hark` as its users and their scripts meet it.

mod client;
mod refusals;
mod up;

use std::time::Duration;

/// Long enough that only a failure reaches it.
const SOON: Duration = Duration::from_secs(20);
