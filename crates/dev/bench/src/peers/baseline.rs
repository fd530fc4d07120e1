use std::io;

use super::floor::own_server;
use super::{Peer, Place, Running};

/// What one would write with axum in an afternoon.
pub(super) struct Baseline;

impl Peer for Baseline {
    fn name(&self) -> &'static str {
        "axum"
    }

    fn setup(&self) -> &'static str {
        "`bench axum`: axum's `Sse` over tokio's `broadcast` (1,024 messages), nothing stored"
    }

    fn start(&self, place: &Place<'_>) -> io::Result<Running> {
        own_server(place, "axum")
    }
}
