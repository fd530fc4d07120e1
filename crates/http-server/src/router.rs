//! The layers around a service's routes: problems for unknown paths, wrong methods, overlong targets
//! and panics, each with the request's id; checks of origins and hosts; metrics.

use axum::Router;
use axum::extract::Request;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

use crate::access::AccessPolicy;
use crate::around::{Around, AroundLayer};
use crate::identify::Identify;
use crate::operations::RequestMetrics;
use crate::problem::Problem;

/// The longest path and query that are accepted, in bytes: 100 channels and a cursor of 2 KB take 6 KB.
/// Longer ones get 414, or 431 if they do not even fit into the server's head buffer.
pub const MAX_TARGET: usize = 16 * 1024;

/// Names the call that was probably meant by one that does not exist, if it can be guessed.
pub type Meant = fn(&Method, &Uri) -> Option<String>;

/// The answer for an unknown path.
fn not_found(method: &Method, uri: &Uri, meant: Meant) -> Problem {
    let detail = format!("there is nothing at {}", shortened(uri.path()));
    Problem::new(StatusCode::NOT_FOUND, "not-found", "Not found")
        .detail(with_meant(detail, meant(method, uri)))
}

/// The answer for a method that a path does not support; `Allow` names those that it does (RFC 9110,
/// 15.5.6).
fn method_not_allowed(method: &Method, uri: &Uri, meant: Meant) -> Problem {
    let path = shortened(uri.path());
    let detail = format!("{path} does not support {method}; see the Allow header");
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method-not-allowed",
        "Method not allowed",
    )
    .detail(with_meant(detail, meant(method, uri)))
}

fn with_meant(detail: String, meant: Option<String>) -> String {
    match meant {
        Some(meant) => format!("{detail}; {meant}"),
        None => detail,
    }
}

/// Enough of a path to recognise it; paths are ASCII.
fn shortened(path: &str) -> &str {
    path.get(..200).unwrap_or(path)
}

/// The router with problem+json for unknown paths, wrong methods, overlong targets and panics, and with
/// request ids. Add routes before this and the access policy after it. A service whose requests are
/// counted uses [`guarded`] instead.
pub fn layered(router: Router) -> Router {
    helpful(router, |_, _| None)
}

/// [`layered`], with hints for callers that ask for something that does not exist.
pub fn helpful(router: Router, meant: Meant) -> Router {
    with_fallbacks(router, meant).layer(AroundLayer((Identify, LimitTarget)))
}

/// Everything that a service puts around its routes, as one layer: [`layered`], the access policy around
/// that, and metrics around all of it. One layer, because each request clones, allocates and moves
/// through every layer of a router. Add routes before this and nothing after it. `meant` gives hints to
/// callers that ask for something that does not exist.
pub fn guarded(
    router: Router,
    meant: Meant,
    access: AccessPolicy,
    requests: &RequestMetrics,
) -> Router {
    let inner = (access.into_guard(), LimitTarget);
    with_fallbacks(router, meant).layer(AroundLayer((requests.clone(), (Identify, inner))))
}

fn with_fallbacks(router: Router, meant: Meant) -> Router {
    router
        .fallback(async move |method: Method, uri: Uri| not_found(&method, &uri, meant))
        .method_not_allowed_fallback(async move |method: Method, uri: Uri| {
            method_not_allowed(&method, &uri, meant)
        })
}

#[derive(Clone)]
struct LimitTarget;

impl Around for LimitTarget {
    type Kept = ();

    fn before(&self, request: &mut Request) -> ((), Option<Response>) {
        let length = request
            .uri()
            .path_and_query()
            .map_or(0, |target| target.as_str().len());
        let refused = (length > MAX_TARGET).then(|| {
            Problem::new(StatusCode::URI_TOO_LONG, "uri-too-long", "URI too long")
                .detail(format!(
                    "{length} bytes of path and query; at most {MAX_TARGET} are read"
                ))
                .into_response()
        });
        ((), refused)
    }

    fn after(&self, (): (), response: Response) -> Response {
        response
    }
}

#[cfg(test)]
mod tests;
