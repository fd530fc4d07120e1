//! The REST interface: all routes are here, and their handlers in the files below.

mod body;
mod heads;
mod history;
mod page;
mod paths;
mod post;
mod problems;
mod request;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post as posting};
use http_server::access::AccessPolicy;
use http_server::operations::RequestMetrics;
use http_server::router;

pub(crate) use request::{AppState, Neighbour};

/// The service's paths. The layers around them are, from the inside: problems and request ids, access,
/// metrics.
pub(crate) fn router(state: AppState, requests: &RequestMetrics, access: AccessPolicy) -> Router {
    let head = get(history::head);
    let messages = get(history::messages).post(post::message);
    // A slash at the end is a common slip and has no other meaning.
    let routes = Router::new()
        .route("/channels/{channel}", head.clone())
        .route("/channels/{channel}/", head)
        .route("/channels/{channel}/messages", messages.clone())
        .route("/channels/{channel}/messages/", messages)
        .route("/heads", posting(heads::heads))
        .route("/chat/publish/{channel}/{user}", posting(post::older))
        .with_state(Arc::new(state));
    router::guarded(routes, paths::meant, access, requests)
}
