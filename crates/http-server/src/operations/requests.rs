use std::sync::Arc;

use axum::extract::{MatchedPath, Request};
use axum::response::Response;
use parking_lot::RwLock;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use tokio::time::Instant;

use super::Operations;
use crate::around::Around;

/// Upper bounds of the histogram buckets, in seconds.
const BUCKETS: [f64; 12] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
];

/// Counts a service's requests by route, method and status, and measures the time until the answer's
/// head. The route is the pattern that matched, never the path, so that strangers cannot create labels.
#[derive(Clone, Debug)]
pub struct RequestMetrics {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    requests: Family<Answered, Counter>,
    durations: Family<Route, Histogram>,
    /// At most one for each route of the router.
    routes: RwLock<Vec<Arc<RouteMetrics>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    route: String,
    method: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

impl RequestMetrics {
    /// Registers `<prefix>_http_requests` and `<prefix>_http_request_duration_seconds`.
    pub fn register(operations: &Operations, prefix: &str) -> Self {
        let shared = Shared {
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            routes: RwLock::default(),
        };
        operations.register(|registry| {
            registry.register(
                format!("{prefix}_http_requests"),
                "Requests answered",
                shared.requests.clone(),
            );
            registry.register(
                format!("{prefix}_http_request_duration_seconds"),
                "Time from a request's head to its answer's head",
                shared.durations.clone(),
            );
        });
        Self {
            shared: Arc::new(shared),
        }
    }
}

impl Around for RequestMetrics {
    type Kept = Begun;

    fn before(&self, request: &mut Request) -> (Begun, Option<Response>) {
        let matched = request.extensions().get::<MatchedPath>();
        let begun = Begun {
            route: self
                .shared
                .route(matched.map_or("none", MatchedPath::as_str)),
            method: known_method(request.method().as_str()),
            at: Instant::now(),
        };
        (begun, None)
    }

    fn after(&self, begun: Begun, response: Response) -> Response {
        let Begun { route, method, at } = begun;
        route.durations.observe(at.elapsed().as_secs_f64());
        let status = response.status().as_u16();
        self.shared.count(&route, method, status);
        response
    }
}

/// A request under way.
pub(crate) struct Begun {
    route: Arc<RouteMetrics>,
    method: &'static str,
    at: Instant,
}

/// The metrics of one route, looked up only once: each look-up in a family allocates a `String` for the
/// label and hashes it.
#[derive(Debug)]
struct RouteMetrics {
    name: String,
    durations: Histogram,
    /// By method and status; a route has only a handful.
    answers: RwLock<Vec<(&'static str, u16, Counter)>>,
}

impl Shared {
    fn route(&self, name: &str) -> Arc<RouteMetrics> {
        let known = self.routes.read();
        if let Some(route) = known.iter().find(|route| route.name == name) {
            return Arc::clone(route);
        }
        drop(known);
        let label = Route {
            route: name.to_owned(),
        };
        let route = Arc::new(RouteMetrics {
            name: name.to_owned(),
            durations: self.durations.get_or_create(&label).clone(),
            answers: RwLock::default(),
        });
        // Two threads may both add it; they count in the same metrics.
        let mut routes = self.routes.write();
        routes.push(Arc::clone(&route));
        route
    }

    fn count(&self, route: &RouteMetrics, method: &'static str, status: u16) {
        let known = route.answers.read();
        let found = known.iter().find(|(m, s, _)| (*m, *s) == (method, status));
        if let Some((_, _, counter)) = found {
            counter.inc();
            return;
        }
        drop(known);
        let label = Answered {
            route: route.name.clone(),
            method,
            status,
        };
        let counter = self.requests.get_or_create(&label).clone();
        counter.inc();
        let mut answers = route.answers.write();
        answers.push((method, status, counter));
    }
}

/// Callers can invent methods, but must not be able to invent labels.
fn known_method(method: &str) -> &'static str {
    match method {
        "GET" => "GET",
        "POST" => "POST",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "PATCH" => "PATCH",
        _ => "other",
    }
}
