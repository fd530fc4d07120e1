use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use tokio_util::sync::CancellationToken;

use super::HttpOptions;
use super::places::Place;

/// A client that has connected, and everything that its connection needs.
pub(super) struct Visit {
    pub(super) peer: SocketAddr,
    pub(super) place: Place,
    pub(super) router: Router,
    pub(super) options: Arc<HttpOptions>,
    pub(super) soft: CancellationToken,
    pub(super) hard: CancellationToken,
    /// Cancelled when others need the place of this idle connection.
    pub(super) give_way: CancellationToken,
}
