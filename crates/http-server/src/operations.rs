//! Health and metrics for operators: `/healthz`, `/readyz` and `/metrics` on a separate listener, which
//! several services of one process may share.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::future::join_all;
use parking_lot::{Mutex, MutexGuard};
use prometheus_client::registry::Registry;
use serde_json::{Map, Value, json};

mod process;
mod requests;

pub use requests::RequestMetrics;

use process::Process;

/// A readiness check that takes longer than this has failed.
const CHECK_TIME: Duration = Duration::from_secs(2);

/// The health of something that a service needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It works.
    Ok,
    /// It does not work, but the service can do its work without it. The text is the reason.
    Degraded(String),
    /// The service cannot do its work. The text is the reason.
    Failed(String),
}

type Check = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Health> + Send>> + Send + Sync>;

/// Metrics and readiness checks of a process. Clones share them.
#[derive(Clone, Default)]
pub struct Operations {
    shared: Arc<Shared>,
    /// The prefix for the names of checks that are added here.
    service: Option<&'static str>,
    /// Rewords the reasons of checks that are added here.
    words: Option<Words>,
}

type Words = fn(&str) -> String;

#[derive(Default)]
struct Shared {
    registry: Mutex<Registry>,
    checks: Mutex<Vec<(String, Check)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

impl Operations {
    /// Starts without checks, and with the metrics of the process only.
    pub fn new() -> Self {
        let operations = Self::default();
        operations.register(|registry| registry.register_collector(Box::new(Process)));
        operations
    }

    /// A clone for one of several services in a process. Its checks are named `<service>.<check>`, so
    /// that two services may have checks of the same name.
    #[must_use]
    pub fn of_service(&self, service: &'static str) -> Self {
        let shared = Arc::clone(&self.shared);
        Self {
            shared,
            service: Some(service),
            words: self.words,
        }
    }

    /// Adapts this to a service whose settings have other names in this process: `words` rewrites the
    /// reasons of its checks.
    #[must_use]
    pub fn worded(self, words: fn(&str) -> String) -> Self {
        Self {
            words: Some(words),
            ..self
        }
    }

    /// Registers metrics. Their names must begin with the service's prefix, such as `hark_chat_`, so that
    /// services can share a registry. prometheus-client adds `_total` to counters by itself.
    pub fn register<R>(&self, register: impl FnOnce(&mut Registry) -> R) -> R {
        register(&mut lock(&self.shared.registry))
    }

    /// Adds a readiness check under a name that operators understand, such as `store`. It must answer
    /// within two seconds.
    pub fn add_check<F, T>(&self, name: impl Into<String>, check: F)
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Future<Output = Health> + Send + 'static,
    {
        let words = self.words;
        let check: Check = Arc::new(move || {
            let health = check();
            Box::pin(async move { said(health.await, words) })
        });
        let name = name.into();
        let name = self
            .service
            .map_or(name.clone(), |service| format!("{service}.{name}"));
        lock(&self.shared.checks).push((name, check));
    }

    /// Runs all checks at the same time; the results are in the order in which checks were added.
    pub async fn readiness(&self) -> Vec<(String, Health)> {
        let checks = lock(&self.shared.checks).clone();
        join_all(checks.into_iter().map(|(name, check)| async move {
            let health = tokio::time::timeout(CHECK_TIME, check())
                .await
                .unwrap_or_else(|_late| Health::Failed("no answer within 2 s".to_owned()));
            (name, health)
        }))
        .await
    }

    /// All metrics in the OpenMetrics text format.
    pub fn metrics_text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail, but a broken collector would leave the text incomplete.
        if let Err(error) =
            prometheus_client::encoding::text::encode(&mut text, &lock(&self.shared.registry))
        {
            tracing::error!(%error, "metrics could not be written out");
        }
        text
    }

    /// `/healthz` answers 200 while the process runs. `/readyz` answers 200, or 503 if a check has failed,
    /// and lists every check by name. `/metrics` answers with OpenMetrics text.
    pub fn router(&self) -> Router {
        crate::router::layered(
            Router::new()
                .route(
                    "/healthz",
                    get(|| async { Json(json!({"status": "alive"})) }),
                )
                .route("/readyz", get(readyz))
                .route("/metrics", get(metrics))
                .with_state(self.clone()),
        )
    }
}

fn said(health: Health, words: Option<Words>) -> Health {
    match (health, words) {
        (Health::Degraded(reason), Some(words)) => Health::Degraded(words(&reason)),
        (Health::Failed(reason), Some(words)) => Health::Failed(words(&reason)),
        (health, _) => health,
    }
}

async fn readyz(State(operations): State<Operations>) -> Response {
    let mut ready = true;
    let mut checks = Map::new();
    for (name, health) in operations.readiness().await {
        ready &= !matches!(health, Health::Failed(_));
        let value: Value = match health {
            Health::Ok => json!({"status": "ok"}),
            Health::Degraded(reason) => json!({"status": "degraded", "reason": reason}),
            Health::Failed(reason) => json!({"status": "failed", "reason": reason}),
        };
        checks.insert(name, value);
    }
    let (status, word) = if ready {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready")
    };
    (status, Json(json!({"status": word, "checks": checks}))).into_response()
}

async fn metrics(State(operations): State<Operations>) -> Response {
    (
        [(
            header::CONTENT_TYPE,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        )],
        operations.metrics_text(),
    )
        .into_response()
}

#[cfg(test)]
mod tests;
