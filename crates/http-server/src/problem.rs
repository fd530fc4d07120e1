//! Error answers as `application/problem+json` (RFC 9457).

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};

/// One problem: what went wrong and what to change.
///
/// `type` is the relative reference `/problems/<slug>`. It is stable, and programs can rely on it.
/// `title` is the same for all problems of a type; `detail` describes this one.
#[derive(Clone, Debug)]
pub struct Problem(Box<Parts>);

/// Boxed, because a problem is the rare case of many `Result`s.
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

    /// Says what is wrong with this request and what to change.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// The detail, for a log; the title if there is no detail.
    pub fn reason(&self) -> &str {
        self.0.detail.as_deref().unwrap_or(self.0.title)
    }

    /// Adds a member, such as `field`.
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

    /// Closes the connection after this answer: the rest of the request will not be read.
    #[must_use]
    pub fn closing(mut self) -> Self {
        self.0.close = true;
        self
    }

    /// Says why it happened. This is for the log only, never for the answer. It is logged once, with the
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

    /// An internal error. Add [its cause](Self::caused_by), for the log.
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "Internal error",
        )
        .detail("something went wrong in the service; search its log for the request id")
    }

    /// Why it happened, if that was given.
    pub(crate) fn cause(&self) -> Option<&str> {
        self.0.cause.as_deref()
    }

    /// The body of the answer.
    pub(crate) fn body(&self) -> Vec<u8> {
        // Strings, numbers and JSON values always serialise.
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
        // `identify` takes it from here and adds the request's id to the body.
        response.extensions_mut().insert(self);
        response
    }
}
