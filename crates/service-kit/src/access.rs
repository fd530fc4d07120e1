//! Which web pages may use a service: CORS, and the rules that protect a service without log-in from
//! pages of strangers that run in its user's browser.
//!
//! One function decides about an `Origin`, and everything else follows from it, which is why this is
//! not a generic CORS layer: a page that is not allowed gets no CORS headers (its browser keeps the
//! answer from it), and its POST is refused before it does anything, because plain text and form
//! bodies are sent without a preflight.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HOST,
    ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::around::{Around, AroundLayer};
use crate::problem::{Identify, Problem};

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST");
const REQUEST_HEADERS: HeaderValue =
    HeaderValue::from_static("content-type, idempotency-key, last-event-id, x-request-id");
const EXPOSED: HeaderValue = HeaderValue::from_static("retry-after, location, x-request-id");
/// Two hours, the longest that Chromium keeps a preflight.
const PREFLIGHT_AGE: HeaderValue = HeaderValue::from_static("7200");

/// The `[access]` table of a service's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessConfig {
    /// Origins (`https://chat.example`) whose pages may use the service, besides those that are
    /// allowed by themselves; `*` allows every page.
    pub allowed_origins: Vec<String>,
    /// Host names that requests may be for while the service listens on loopback, besides loopback's
    /// own: the name under which a reverse proxy on this machine is reached.
    pub allowed_hosts: Vec<String>,
}

/// Who may use a service from a web page.
///
/// On loopback, pages of any port of `localhost`, `127.0.0.0/8` and `[::1]` are allowed, and a
/// request for any other host is refused: a name that was made to point to 127.0.0.1 (DNS
/// rebinding) would make a stranger's page same-origin. When open to others, a page of the host that
/// the request itself is for is allowed, whatever its port, and the host is not checked.
#[derive(Clone, Debug)]
pub struct AccessPolicy {
    any_origin: bool,
    allowed_origins: Vec<String>,
    allowed_hosts: Vec<String>,
    loopback_only: bool,
}

impl AccessPolicy {
    /// The policy of a service that listens on `listen`.
    pub fn new(config: &AccessConfig, listen: SocketAddr) -> Self {
        let lower = |list: &[String]| {
            list.iter()
                .map(|item| item.trim().trim_end_matches('/').to_ascii_lowercase())
                .collect::<Vec<_>>()
        };
        let allowed_origins = lower(&config.allowed_origins);
        Self {
            any_origin: allowed_origins.iter().any(|origin| origin == "*"),
            allowed_origins,
            allowed_hosts: lower(&config.allowed_hosts),
            loopback_only: listen.ip().is_loopback(),
        }
    }

    /// Puts the policy around all of `router`, its errors and its 404 included: call it after
    /// [`problem::layered`](crate::problem::layered).
    pub fn layer(self, router: Router) -> Router {
        router.layer(AroundLayer((Identify, self.into_guard())))
    }

    pub(crate) fn into_guard(self) -> Guard {
        Guard(Arc::new(self))
    }

    /// Whether a page of `origin` may use the service through `host` (both as in their headers, the
    /// host without its port).
    fn allows_origin(&self, origin: &HeaderValue, host: Option<&str>) -> bool {
        if self.any_origin {
            return true;
        }
        let Ok(origin) = origin.to_str() else {
            return false;
        };
        let origin = origin.to_ascii_lowercase();
        if self.allowed_origins.contains(&origin) {
            return true;
        }
        // `null`, the origin of files and sandboxed frames, has no host.
        let Some(page) = origin
            .strip_prefix("http://")
            .or_else(|| origin.strip_prefix("https://"))
            .map(without_port)
        else {
            return false;
        };
        if self.loopback_only {
            is_loopback(page) || self.allowed_hosts.iter().any(|allowed| allowed == page)
        } else {
            host.is_some_and(|host| host == page)
        }
    }

    fn allows_host(&self, host: &str) -> bool {
        !self.loopback_only
            || is_loopback(host)
            || self.allowed_hosts.iter().any(|allowed| allowed == host)
    }
}

#[derive(Clone)]
pub(crate) struct Guard(Arc<AccessPolicy>);

/// The request's origin, if it has one, and whether its pages may use the service.
pub(crate) type Origin = (Option<HeaderValue>, bool);

impl Around for Guard {
    type Kept = Origin;

    fn before(&self, request: &mut Request) -> (Origin, Option<Response>) {
        let policy = &*self.0;
        let host = request_host(request.uri(), request.headers());
        let origin = request.headers().get(ORIGIN).cloned();
        let allowed = origin
            .as_ref()
            .is_some_and(|origin| policy.allows_origin(origin, host.as_deref()));
        let answer = if let Some(host) = host.filter(|host| !policy.allows_host(host)) {
            Some(foreign_host(&host).into_response())
        } else if is_preflight(request) {
            Some(preflight(allowed))
        } else if origin.is_some() && !allowed && changes_something(request.method()) {
            Some(foreign_origin(origin.as_ref()).into_response())
        } else {
            None
        };
        ((origin, allowed), answer)
    }

    fn after(&self, (origin, allowed): Origin, mut response: Response) -> Response {
        let headers = response.headers_mut();
        headers.append(VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = origin.filter(|_| allowed) {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
        response
    }
}

/// The host that the request is for, in lower case and without its port; `None` if it names none,
/// which no browser does.
fn request_host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<Cow<'a, str>> {
    let named = match uri.authority() {
        Some(authority) => authority.as_str(),
        // A value that is no text is no host of ours either.
        None => headers.get(HOST)?.to_str().unwrap_or("(not text)"),
    };
    let host = without_port(named);
    Some(if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    })
}

fn without_port(authority: &str) -> &str {
    if authority.starts_with('[') {
        return authority
            .find(']')
            .map_or(authority, |end| &authority[..=end]);
    }
    authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host)
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS
        && request.headers().contains_key(ORIGIN)
        && request
            .headers()
            .contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

fn changes_something(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

fn preflight(allowed: bool) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    if allowed {
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
        headers.insert(ACCESS_CONTROL_MAX_AGE, PREFLIGHT_AGE);
    }
    response
}

fn foreign_host(host: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "foreign-host", "Host not allowed").detail(format!(
        "this service answers on loopback only, and {host:?} is not a loopback name; \
         add it to access.allowed_hosts if a proxy here serves it"
    ))
}

fn foreign_origin(origin: Option<&HeaderValue>) -> Problem {
    let origin = origin
        .and_then(|origin| origin.to_str().ok())
        .unwrap_or("(not text)");
    Problem::new(
        StatusCode::FORBIDDEN,
        "foreign-origin",
        "Origin not allowed",
    )
    .detail(format!(
        "pages of {origin:?} may not post here; add it to access.allowed_origins to let them"
    ))
}

#[cfg(test)]
mod tests;
