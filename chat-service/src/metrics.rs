//! The metrics of chat-service, other than those of its requests.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use chat_mqtt::Publisher;
use chat_store::Store;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::outbox::Gauges;

/// Reads the counters of store, publisher and outbox when metrics are requested.
pub(crate) struct Snapshot {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) publisher: Publisher,
    pub(crate) outbox: Arc<Gauges>,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").finish_non_exhaustive()
    }
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let store = self.store.stats();
        let publisher = self.publisher.counters();
        let outbox = &*self.outbox;
        let broker_up = u64::from(self.publisher.state().borrow().is_up());
        for (name, help, value) in [
            (
                "store_commits",
                "Transactions with at least one message",
                store.commits,
            ),
            ("store_stored", "Messages stored", store.stored),
            (
                "store_repeated",
                "Posts that had already been stored",
                store.repeated,
            ),
            ("store_refused", "Posts refused by the store", store.refused),
            (
                "store_failed",
                "Posts that the store failed to store",
                store.failed,
            ),
            (
                "store_expired",
                "Events removed by retention",
                store.expired,
            ),
            (
                "store_expired_early",
                "Events less than a day old that were removed for lack of room",
                store.expired_early,
            ),
            (
                "store_channels_forgotten",
                "Channels forgotten after everything in them had expired",
                store.channels_forgotten,
            ),
            (
                "store_damaged",
                "Numbers whose events were damaged when they were read",
                store.damaged,
            ),
            (
                "store_keys_dropped_early",
                "Ids and keys forgotten before their time",
                store.keys_dropped_early,
            ),
            (
                "store_keys_refused_by_share",
                "Posts refused because a sender or channel has used its share of the ids and keys",
                store.keys_refused_by_share,
            ),
            (
                "store_keys_refused",
                "Posts refused because no more ids and keys can be remembered",
                store.keys_refused,
            ),
            (
                "store_checkpoints_blocked",
                "Checkpoints that a reader kept from finishing",
                store.checkpoints_blocked,
            ),
            (
                "publish_confirmed",
                "Events that the broker acknowledged",
                publisher.confirmed,
            ),
            (
                "publish_lost",
                "Publishes to be repeated after a lost connection",
                publisher.lost,
            ),
            (
                "publish_set_aside",
                "Events that the broker rejects; listeners get them from history",
                publisher.set_aside,
            ),
            (
                "publish_disconnects",
                "Broker connections that ended",
                publisher.disconnects,
            ),
        ] {
            encode(&mut encoder, name, help, &ConstCounter::new(value))?;
        }
        encode(
            &mut encoder,
            "store_commit_seconds",
            "Time spent in transactions with messages",
            &ConstCounter::new(store.commit_time.as_secs_f64()),
        )?;
        for (name, help, value) in [
            ("store_queued", "Posts waiting for the writer", store.queued),
            ("store_keys", "Ids and keys remembered", store.keys),
            (
                "store_database_bytes",
                "Size of the database file",
                store.database_bytes,
            ),
            (
                "store_wal_bytes",
                "Size of the write-ahead log",
                store.wal_bytes,
            ),
            (
                "outbox_depth",
                "Positions between the newest commit and the watermark",
                store.unpublished,
            ),
            (
                "outbox_in_flight",
                "Events waiting for the broker's acknowledgement",
                outbox.in_flight.load(Relaxed),
            ),
            (
                "outbox_in_flight_bytes",
                "Bytes of these events",
                outbox.in_flight_bytes.load(Relaxed),
            ),
            (
                "outbox_following",
                "1 while commits come straight from the writer, 0 while the log is read",
                u64::from(outbox.following.load(Relaxed)),
            ),
            ("broker_up", "1 while the broker can be reached", broker_up),
        ] {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            encode(&mut encoder, name, help, &ConstGauge::new(value))?;
        }
        encode(
            &mut encoder,
            "store_longest_commit_seconds",
            "The longest transaction since the start",
            &ConstGauge::new(store.longest_commit.as_secs_f64()),
        )
    }
}

fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metric: &impl EncodeMetric,
) -> fmt::Result {
    let name = format!("hark_chat_{name}");
    metric.encode(encoder.encode_descriptor(&name, help, None, metric.metric_type())?)
}
