//! Which web pages may use a service: CORS, and the rules that protect a service without log-in from
//! strangers' pages in its user's browser.
//!
//! This is not a generic CORS layer, because one function decides about an `Origin` and everything else
//! follows from that. A page that is not allowed gets no CORS headers, so its browser withholds the
//! answer from it. Its POST is refused before it does anything, because browsers send plain text and
//! form bodies without a preflight.

mod host;
mod origin;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HOST,
    ORIGIN, VARY,
};
use axum::http::{HeaderValue, Method, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use service_kit::log_limit::LogLimit;

use crate::around::{Around, AroundLayer};
use crate::identify::Identify;
use crate::problem::Problem;
use host::Host;

pub use origin::{NotAnOrigin, parse as parse_origin};

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST");
const REQUEST_HEADERS: HeaderValue =
    HeaderValue::from_static("content-type, idempotency-key, last-event-id, x-request-id");
const EXPOSED: HeaderValue = HeaderValue::from_static("retry-after, location, x-request-id");
/// How many refused requests from pages are logged per minute.
const REFUSALS: u32 = 3;
/// In characters, because the origin or host in the text comes from a stranger.
const LONGEST_REASON: usize = 400;
/// Two hours, the longest that Chromium keeps a preflight.
const PREFLIGHT_AGE: HeaderValue = HeaderValue::from_static("7200");

/// The `[access]` table of a service's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessConfig {
    /// Origins (`https://chat.example`) whose pages may use the service, besides those that are always
    /// allowed; `*` allows every page.
    pub allowed_origins: Vec<String>,
    /// Host names that requests may name, besides the service's own: those under which a reverse proxy
    /// serves it, and public names of this machine. `*` allows every host.
    pub allowed_hosts: Vec<String>,
}

/// Who may use a service from a web page.
///
/// A request must name a host that the service knows as its own. Otherwise a stranger could point a
/// name at this machine (DNS rebinding), and the stranger's page would be same-origin with the service.
///
/// - On loopback, the service's own hosts are `localhost`, loopback addresses and `allowed_hosts`.
///   Pages of these hosts are allowed, whatever their port.
/// - On the network without TLS, its own hosts are every address, every name that no stranger can
///   register (without a dot, or below `local`, `internal`, `localhost` or `home.arpa`), the machine's
///   own name and `allowed_hosts`. Pages of the host that the request names are allowed, whatever their
///   port.
/// - On the network with TLS, the host is not checked: a misled browser finds a certificate for another
///   name.
#[derive(Clone, Debug)]
pub struct AccessPolicy {
    any_origin: bool,
    allowed_origins: Vec<String>,
    any_host: bool,
    allowed_hosts: Vec<String>,
    reach: Reach,
    /// Whether there is a setting that adds to `allowed_hosts`.
    is_set: bool,
}

/// Who can connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Loopback,
    Network,
    NetworkByTls,
}

impl AccessPolicy {
    /// The policy of a service that listens on `listen`, with or without TLS.
    pub fn new(config: &AccessConfig, listen: SocketAddr, tls: bool) -> Self {
        let reach = match (listen.ip().to_canonical().is_loopback(), tls) {
            (true, _) => Reach::Loopback,
            (false, false) => Reach::Network,
            (false, true) => Reach::NetworkByTls,
        };
        let own = rustix::system::uname();
        Self::of_machine(config, reach, &own.nodename().to_string_lossy())
    }

    fn of_machine(config: &AccessConfig, reach: Reach, own_name: &str) -> Self {
        let mut allowed_hosts: Vec<_> = config.allowed_hosts.iter().map(|it| host(it)).collect();
        if reach == Reach::Network && Host::parse(own_name).is_some() {
            allowed_hosts.push(own_name.to_owned());
        }
        Self {
            any_origin: config.allowed_origins.iter().any(|it| it.trim() == "*"),
            allowed_origins: config.allowed_origins.iter().map(|it| origin(it)).collect(),
            any_host: config.allowed_hosts.iter().any(|it| it.trim() == "*"),
            allowed_hosts,
            reach,
            is_set: true,
        }
    }

    /// The policy of an operators' listener on loopback. It allows the hosts of its service, and only
    /// loopback pages. `None` means that the service has no setting `access.allowed_hosts`.
    pub fn of_operators(allowed_hosts: Option<&[String]>) -> Self {
        let config = AccessConfig {
            allowed_origins: Vec::new(),
            allowed_hosts: allowed_hosts.unwrap_or_default().to_vec(),
        };
        Self {
            is_set: allowed_hosts.is_some(),
            ..Self::of_machine(&config, Reach::Loopback, "")
        }
    }

    /// Puts the policy around all of `router`, including its errors and its 404. Call this after
    /// [`router::layered`](crate::router::layered).
    pub fn layer(self, router: Router) -> Router {
        router.layer(AroundLayer((Identify, self.into_guard())))
    }

    pub(crate) fn into_guard(self) -> Guard {
        Guard(Arc::new(Guarded {
            policy: self,
            refused: LogLimit::per_minute(REFUSALS),
        }))
    }

    /// Whether a page of `origin` may use the service through `host`.
    fn allows_origin(&self, origin: &HeaderValue, host: Option<Host<'_>>) -> bool {
        if self.any_origin {
            return true;
        }
        let Ok(origin) = origin.to_str() else {
            return false;
        };
        let mut listed = self.allowed_origins.iter();
        if listed.any(|listed| listed.eq_ignore_ascii_case(origin)) {
            return true;
        }
        // `null`, the origin of files and sandboxed frames, has no host.
        let Some(page) = host::of_page(origin) else {
            return false;
        };
        let same = Some(page) == host;
        match self.reach {
            Reach::Loopback => page.is_loopback() || self.lists(page) || (self.any_host && same),
            Reach::Network | Reach::NetworkByTls => same,
        }
    }

    fn allows_host(&self, host: Host<'_>) -> bool {
        let known = match self.reach {
            Reach::Loopback => host.is_loopback(),
            Reach::Network => matches!(host, Host::Address(_)) || host.is_private_name(),
            Reach::NetworkByTls => true,
        };
        known || self.any_host || self.lists(host)
    }

    fn lists(&self, host: Host<'_>) -> bool {
        let mut listed = self.allowed_hosts.iter();
        listed.any(|listed| Host::parse(listed) == Some(host))
    }

    /// The request's host, or the reason to refuse the request.
    fn check_host<'a>(&self, request: &'a Request) -> Result<Option<Host<'a>>, Problem> {
        let named = named_host(request)?;
        let Some(named) = named else {
            return Ok(None);
        };
        match Host::parse(named) {
            None => Err(bad_host(&format!("{named:?} is not a host"))),
            Some(host) if !self.allows_host(host) => Err(self.foreign_host(host)),
            host => Ok(host),
        }
    }

    fn foreign_host(&self, host: Host<'_>) -> Problem {
        let why = if self.reach == Reach::Loopback {
            "this service listens on loopback only, and that is not a loopback name"
        } else {
            "anybody on the internet could have pointed that name here"
        };
        let host = host.to_string();
        let advice = if self.is_set {
            "if it is the name of this service, or of a proxy in front of it, add it to access.allowed_hosts"
        } else {
            "ask for localhost or 127.0.0.1"
        };
        Problem::new(StatusCode::FORBIDDEN, "foreign-host", "Host not allowed")
            .detail(format!("the request is for {host:?}, and {why}; {advice}"))
    }
}

/// A host of the configuration: a name, perhaps not in ASCII, or an address.
fn host(text: &str) -> String {
    let text = text.trim();
    match (Host::parse(text), url::Host::parse(text)) {
        (Some(host), _) => host.to_string(),
        (None, Ok(host)) => host.to_string(),
        (None, Err(_)) => text.to_owned(),
    }
}

/// An origin of the configuration as browsers write it.
fn origin(text: &str) -> String {
    parse_origin(text).unwrap_or_else(|_unknown| text.trim().to_owned())
}

#[derive(Clone)]
pub(crate) struct Guard(Arc<Guarded>);

struct Guarded {
    policy: AccessPolicy,
    refused: LogLimit,
}

impl Guarded {
    /// Logs the refusal for the operator: the user of a refused page sees only that nothing works.
    fn tell(&self, what: &str, reason: &str) {
        if let Some(left_out) = self.refused.line() {
            let reason: String = reason.chars().take(LONGEST_REASON).collect();
            tracing::warn!(left_out, "{what}: {reason}");
        }
    }
}

/// The request's origin, if it has one, and whether its pages may use the service.
pub(crate) type Origin = (Option<HeaderValue>, bool);

impl Around for Guard {
    type Kept = Origin;

    fn before(&self, request: &mut Request) -> (Origin, Option<Response>) {
        let policy = &self.0.policy;
        let origin = request.headers().get(ORIGIN).cloned();
        let host = match policy.check_host(request) {
            Ok(host) => host,
            Err(refused) => {
                self.0.tell("a request was refused", refused.reason());
                return ((origin, false), Some(refused.into_response()));
            }
        };
        let allowed = origin
            .as_ref()
            .is_some_and(|origin| policy.allows_origin(origin, host));
        if let Some(origin) = origin.as_ref().filter(|_| !allowed) {
            self.0.tell("a web page was refused", &advice(origin));
        }
        let answer = if is_preflight(request) {
            Some(preflight(allowed))
        } else if origin.is_some() && !allowed && changes_something(request.method()) {
            origin
                .as_ref()
                .map(|origin| foreign_origin(origin).into_response())
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

/// The host that the request names, as it was written. `None` if it names none, which only HTTP/1.0
/// may do.
fn named_host(request: &Request) -> Result<Option<&str>, Problem> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let header = hosts.next();
    if hosts.next().is_some() {
        return Err(bad_host("this request has two of them"));
    }
    if let Some(authority) = request.uri().authority() {
        return Ok(Some(authority.as_str()));
    }
    match header {
        Some(host) => match host.to_str() {
            Ok(host) => Ok(Some(host)),
            Err(_not_ascii) => Err(bad_host("it is not ASCII")),
        },
        None if request.version() <= Version::HTTP_10 => Ok(None),
        None => Err(bad_host(
            "this request has none; a probe can send Host: localhost, or use HTTP/1.0, which needs none",
        )),
    }
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

/// RFC 9112, section 3.2.
fn bad_host(why: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad-host", "Bad Host")
        .detail(format!("a request must name its host once, in Host: {why}"))
}

fn advice(origin: &HeaderValue) -> String {
    origin::advice(origin.to_str().unwrap_or("(not text)"))
}

fn foreign_origin(origin: &HeaderValue) -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "foreign-origin",
        "Origin not allowed",
    )
    .detail(advice(origin))
}

#[cfg(test)]
mod tests;
