//! All routes.

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post as posting};
use http_server::access::AccessPolicy;
use http_server::operations::RequestMetrics;
use http_server::router;

use crate::state::AppState;
use crate::{heads, history, paths, post};

/// The service's paths, and around them, from the inside: problems and request ids, access, metrics.
pub(crate) fn router(state: AppState, requests: &RequestMetrics, access: AccessPolicy) -> Router {
    let head = get(history::head);
    let messages = get(history::messages).post(post::message);
    // A slash at the end is easily there and means nothing else.
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
