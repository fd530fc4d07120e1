//! Gives each request an id, which appears in its head, in the answer's head, in a problem and in the
//! log.

mod request_id;

use axum::extract::Request;
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderName, Method, Uri};
use axum::response::Response;
use tracing::error;

use crate::around::Around;
use crate::problem::Problem;

pub use request_id::RequestId;

/// The header that carries a request's id, in and out.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Gives the request an id (the caller's, if it sent a usable one). The answer gets it as a header, and a
/// problem gets it as the member `request_id`. Nested layers all see the same id.
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
            if let Some(cause) = problem.cause() {
                let (status, path) = (problem.status().as_u16(), uri.path());
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
