use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::middleware::{self, Next};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use tokio::time::Instant;

use super::Operations;

/// Upper bounds of the answer times, in seconds.
const BUCKETS: [f64; 12] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
];

/// Counts a service's requests by route, method and status, and times them up to the answer's head.
/// The route is the pattern that matched, never the path, so that strangers cannot make up labels.
#[derive(Clone, Debug)]
pub struct RequestMetrics {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    requests: Family<Answered, Counter>,
    durations: Family<Route, Histogram>,
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

    /// Counts the requests of all routes of `router`, and those that no route took.
    pub fn layer(&self, router: Router) -> Router {
        let metrics = self.clone();
        router.layer(middleware::from_fn(move |request: Request, next: Next| {
            let shared = Arc::clone(&metrics.shared);
            async move {
                let route = request
                    .extensions()
                    .get::<MatchedPath>()
                    .map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
                let method = known_method(request.method().as_str());
                let begun = Instant::now();
                let response = next.run(request).await;
                shared
                    .durations
                    .get_or_create(&Route {
                        route: route.clone(),
                    })
                    .observe(begun.elapsed().as_secs_f64());
                shared
                    .requests
                    .get_or_create(&Answered {
                        route,
                        method,
                        status: response.status().as_u16(),
                    })
                    .inc();
                response
            }
        }))
    }
}

/// Methods are the caller's to make up; labels are not.
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
