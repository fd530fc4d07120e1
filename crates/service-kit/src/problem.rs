//! Errors as `application/problem+json` (RFC 9457), and the middleware that makes every answer of a
//! router one: unknown paths, wrong methods, panics, each with the request's id.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};
use tracing::error;

use crate::access::AccessPolicy;
use crate::around::{Around, AroundLayer};
use crate::operations::RequestMetrics;

mod request_id;

pub use request_id::RequestId;

/// The header that carries a request's id, in and out.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest path and query that are looked at, in bytes: 100 channels and a cursor of 2 KB take
/// 6 KB. What is longer gets 414 (and 431 once it does not even fit the server's head buffer).
pub const MAX_TARGET: usize = 16 * 1024;

/// One problem: what went wrong and what to change.
///
/// `type` is the relative reference `/problems/<slug>`: stable, what programs look at. `title` is the
/// same for all problems of a type, `detail` is about this one.
#[derive(Clone, Debug)]
pub struct Problem(Box<Parts>);

/// Boxed, because a problem is the rare half of many a `Result`.
#[derive(Clone, Debug, Serialize)]
struct Parts {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    #[serde(serialize_with = "status_number")]
    status: StatusCode,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(flatten)]
    extra: Map<String, Value>,
    #[serde(skip)]
    retry_after: Option<Duration>,
    #[serde(skip)]
    close: bool,
    #[serde(skip)]
    cause: Option<Arc<str>>,
}

fn status_number<S: serde::Serializer>(
    status: &StatusCode,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

impl Problem {
    /// A problem of the type `/problems/<slug>`.
    pub fn new(status: StatusCode, slug: &str, title: &'static str) -> Self {
        Self(Box::new(Parts {
            kind: format!("/problems/{slug}"),
            title,
            status,
            detail: None,
            extra: Map::new(),
            retry_after: None,
            close: false,
            cause: None,
        }))
    }

    /// What is wrong with this request and what to change.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// What [`detail`](Self::detail) has said, for a log; the title where it has said nothing.
    pub fn reason(&self) -> &str {
        self.0.detail.as_deref().unwrap_or(self.0.title)
    }

    /// A further member, such as `field`.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.extra.insert(name.to_owned(), value.into());
        self
    }

    /// Sends `Retry-After`, in whole seconds, at least 1.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// Ends the connection after this answer: the rest of the request will not be read.
    #[must_use]
    pub fn closing(mut self) -> Self {
        self.0.close = true;
        self
    }

    /// Why it happened, for the log and never for the answer: [`layered`] logs it, once, with the
    /// request's id.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Display) -> Self {
        self.0.cause = Some(cause.to_string().into());
        self
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// A failure of ours; say [what caused it](Self::caused_by), for the log.
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "Internal error",
        )
        .detail("something went wrong here; the request id finds it in the log")
    }

    fn body(&self) -> Vec<u8> {
        // Strings, numbers and JSON values: nothing here can fail to serialise.
        serde_json::to_vec(&self.0).unwrap_or_default()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.0.status, self.body()).into_response();
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(after) = self.0.retry_after {
            let seconds = after.as_millis().div_ceil(1000).max(1);
            headers.insert(
                RETRY_AFTER,
                HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX)),
            );
        }
        if self.0.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        // For `identify`, which adds the request's id to the body.
        response.extensions_mut().insert(self);
        response
    }
}

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

/// Gives the request an id (the caller's, if it sent one that can be used), the answer the same as a
/// header, and a problem the member `request_id`. Around each other, all see the same id.
#[derive(Clone)]
pub(crate) struct Identify;

pub(crate) struct Identified {
    id: RequestId,
    method: Method,
    uri: Uri,
}

impl Around for Identify {
    type Kept = Identified;

    fn before(&self, request: &mut Request) -> (Identified, Option<Response>) {
        let kept = Identified {
            id: RequestId::given_to(request),
            method: request.method().clone(),
            uri: request.uri().clone(),
        };
        (kept, None)
    }

    fn after(
        &self,
        Identified { id, method, uri }: Identified,
        mut response: Response,
    ) -> Response {
        if let Some(problem) = response.extensions_mut().remove::<Problem>() {
            if let Some(cause) = problem.0.cause.as_deref() {
                let (status, path) = (problem.0.status.as_u16(), uri.path());
                error!(request_id = id.as_str(), status, %method, path, cause, "a request failed");
            }
            let body = problem.with("request_id", id.as_str()).body();
            response.headers_mut().remove(CONTENT_LENGTH);
            *response.body_mut() = body.into();
        }
        response.headers_mut().insert(REQUEST_ID, id.into_header());
        response
    }
}

#[cfg(test)]
mod tests;
