//! What stands around a service's routes: problems for unknown paths, wrong methods, overlong targets
//! and panics, each with the request's id; origins and hosts; metrics.

use axum::Router;
use axum::extract::Request;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

use crate::access::AccessPolicy;
use crate::around::{Around, AroundLayer};
use crate::identify::Identify;
use crate::operations::RequestMetrics;
use crate::problem::Problem;

/// The longest path and query that are looked at, in bytes: 100 channels and a cursor of 2 KB take
/// 6 KB. What is longer gets 414 (and 431 once it does not even fit the server's head buffer).
pub const MAX_TARGET: usize = 16 * 1024;

/// Names the call that was meant by one that there is not, if that can be told.
pub type Meant = fn(&Method, &Uri) -> Option<String>;

/// The answer to a path that nothing is at.
fn not_found(method: &Method, uri: &Uri, meant: Meant) -> Problem {
    let detail = format!("nothing is at {}", shortened(uri.path()));
    Problem::new(StatusCode::NOT_FOUND, "not-found", "Not found")
        .detail(with_meant(detail, meant(method, uri)))
}

/// The answer to a method that a path does not have; `Allow` names those it has (RFC 9110, 15.5.6).
fn method_not_allowed(method: &Method, uri: &Uri, meant: Meant) -> Problem {
    let path = shortened(uri.path());
    let detail = format!("{path} does not take {method}; see the Allow header");
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

/// Enough of a path to recognise it by; paths are ASCII.
fn shortened(path: &str) -> &str {
    path.get(..200).unwrap_or(path)
}

/// The router with problem+json for unknown paths, wrong methods, overlong targets and panics, and
/// with request ids. Add routes before and the access policy after. A service whose requests are
/// counted calls [`guarded`] instead.
pub fn layered(router: Router) -> Router {
    helpful(router, |_, _| None)
}

/// [`layered`], with help for those who ask for what there is not.
pub fn helpful(router: Router, meant: Meant) -> Router {
    with_fallbacks(router, meant).layer(AroundLayer((Identify, LimitTarget)))
}

/// Everything that a service puts around its routes, as one layer: [`layered`], the access policy
/// around that, and metrics around all of it. Each layer of a router is cloned, allocated for and
/// moved through at every request. Add routes before and nothing after. `meant` helps those who ask
/// for what there is not.
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
