use chat_store::StoreError;
use http_server::operations::Operations;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use super::Posted;

/// Upper bounds of commit times, in seconds.
const BUCKETS: [f64; 11] = [
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0, 20.0,
];

/// Counts the outcomes of posts and times their commits. Clones share the counters.
#[derive(Clone, Debug)]
pub(crate) struct PostMetrics {
    posts: Family<Outcome, Counter>,
    commit_seconds: Histogram,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: OutcomeName,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names are the label's values")]
enum OutcomeName {
    stored,
    stored_without_broker,
    repeated,
    refused,
    failed,
}

impl OutcomeName {
    const ALL: [Self; 5] = [
        Self::stored,
        Self::stored_without_broker,
        Self::repeated,
        Self::refused,
        Self::failed,
    ];
}

impl PostMetrics {
    pub(crate) fn register(operations: &Operations) -> Self {
        let metrics = Self {
            posts: Family::default(),
            commit_seconds: Histogram::new(BUCKETS),
        };
        // Created at 0, because Prometheus would miss the increase to the first one.
        for outcome in OutcomeName::ALL {
            drop(metrics.posts.get_or_create(&Outcome { outcome }));
        }
        operations.register(|registry| {
            registry.register(
                "hark_chat_posts",
                "Posts that reached the store, by outcome",
                metrics.posts.clone(),
            );
            registry.register(
                "hark_chat_commit_seconds",
                "Time that a post waited for its commit",
                metrics.commit_seconds.clone(),
            );
        });
        metrics
    }

    pub(crate) fn count(&self, posted: &Result<Posted, StoreError>, seconds: f64) {
        let outcome = match posted {
            Ok(Posted::New {
                broker_up: true, ..
            }) => OutcomeName::stored,
            Ok(Posted::New { .. }) => OutcomeName::stored_without_broker,
            Ok(Posted::Repeated { .. }) => OutcomeName::repeated,
            Err(
                StoreError::TooLarge { .. }
                | StoreError::KeyReused { .. }
                | StoreError::KeysFull { .. },
            ) => OutcomeName::refused,
            Err(_) => OutcomeName::failed,
        };
        self.posts.get_or_create(&Outcome { outcome }).inc();
        self.commit_seconds.observe(seconds);
    }
}
