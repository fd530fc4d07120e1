//! Tests of the hub with a store that answers over HTTP and without a broker, so channels are polled.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use axum::extract::{Query, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use chat_model::{HeadsQuery, Seq};
use http_server::http::{self, HttpOptions};
use http_server::operations::Operations;
use serde_json::{Value, json};
use service_kit::tls;
use test_kit::{ensure, eventually};

use super::entry::plain;
use super::example_log::{channel, entry, entry_of, head};
use super::*;
use crate::Config;

const SOON: Duration = Duration::from_secs(20);

/// The log of one channel, as chat-service reports it.
#[derive(Default)]
struct Store {
    head: AtomicU64,
    /// A channel whose entry cannot be read.
    damaged: std::sync::OnceLock<ChannelId>,
    /// Whether a page was read since this was last cleared.
    page_read: AtomicBool,
}

async fn heads(State(store): State<Arc<Store>>, Json(query): Json<HeadsQuery>) -> Json<Value> {
    let is_damaged = |channel: &&ChannelId| store.damaged.get() == Some(*channel);
    let damaged: Vec<_> = query.channels.iter().filter(is_damaged).collect();
    let sound = query.channels.iter().filter(|id| !is_damaged(id));
    let heads = sound.map(|channel| {
        let mut head = head(store.head.load(Relaxed));
        head.channel = *channel;
        head
    });
    let heads: Vec<_> = heads.collect();
    Json(json!({ "behind": false, "heads": heads, "damaged": damaged }))
}

#[derive(serde::Deserialize)]
struct After {
    after: Seq,
}

async fn messages(State(store): State<Arc<Store>>, Query(query): Query<After>) -> String {
    let newest = store.head.load(Relaxed);
    let lines = (query.after + 1..=newest).map(|seq| entry(seq, 0).line());
    let lines: Vec<_> = lines
        .map(|line| String::from_utf8(line.to_vec()).unwrap())
        .collect();
    let page = serde_json::to_string(&head(newest)).unwrap();
    let page = page.strip_suffix('}').unwrap();
    store.page_read.store(true, Relaxed);
    format!(r#"{page},"messages":[{}]}}"#, lines.join(","))
}

/// A listener's waker that panics once when it is notified of a page.
struct Fragile {
    store: Arc<Store>,
    sound: AtomicBool,
}

impl Waker for Fragile {
    fn notify(&self) {
        let page = self.store.page_read.load(Relaxed);
        assert!(!page || self.sound.swap(true, Relaxed), "on purpose");
    }
}

struct Running {
    hub: Arc<Hub>,
    store: Arc<Store>,
    metrics: Arc<HubMetrics>,
    life: Lifecycle,
}

/// A hub whose channel has this head.
async fn start(newest: Seq) -> Running {
    let life = Lifecycle::new();
    let store = Arc::new(Store::default());
    store.head.store(newest, Relaxed);
    let listener = http::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new()
        .route("/heads", post(heads))
        .route("/channels/{channel}/messages", get(messages))
        .with_state(store.clone());
    let server = life.clone();
    life.spawn("http", async move {
        http::serve(listener, router, HttpOptions::default(), &server).await;
    });
    // Nothing listens on the discard port: the broker is away.
    let broker = ("HARK_MQTT__URL".to_owned(), "mqtt://127.0.0.1:9".to_owned());
    let config = Config::load(None, [broker]).unwrap();
    let mode = chat_mqtt::SubscriptionMode::Wildcard;
    let (subscriber, deliveries) = Subscriber::start(&config.mqtt, mode, &life);
    let history = History::new(vec![url.parse().unwrap()], &tls::trusting_nobody(), plain);
    let metrics = HubMetrics::register(&Operations::new());
    let hub = Hub::start(
        &config.hub,
        subscriber,
        deliveries,
        history,
        Arc::new(AllBut(forbidden())),
        metrics.clone(),
        &life,
    );
    Running {
        hub,
        store,
        metrics,
        life,
    }
}

/// A channel that nobody may read.
fn forbidden() -> ChannelId {
    uuid::Uuid::from_u128(403).into()
}

/// Everybody may do everything in all other channels.
struct AllBut(ChannelId);

impl Rights for AllBut {
    fn permit<'a>(
        &'a self,
        _: &'a Caller,
        _: Action,
        channels: &'a [ChannelId],
    ) -> rights::Decision<'a> {
        rights::Decision::asked(async {
            tokio::task::yield_now().await;
            let channel = self.0;
            match channels.contains(&channel) {
                true => Err(Refusal::Forbidden { channel }),
                false => Ok(()),
            }
        })
    }
}

impl Running {
    /// A listener whose waker panics once the ring holds what a page brought.
    async fn listen(&self, start: Start) -> Listener {
        let waker = Arc::new(Fragile {
            store: self.store.clone(),
            sound: AtomicBool::new(false),
        });
        let starts = [(channel(), start)];
        let caller = Caller::NOBODY;
        let listener = self.hub.listen(&caller, None, &starts, waker);
        listener.await.unwrap()
    }

    async fn listen_to(&self, starts: &[(ChannelId, Start)]) -> Listener {
        let waker = Arc::new(tokio::sync::Notify::new());
        let caller = Caller::NOBODY;
        let listener = self.hub.listen(&caller, None, starts, waker);
        listener.await.unwrap()
    }
}

/// Takes until these numbers have arrived.
async fn take(listener: &mut Listener, numbers: impl Iterator<Item = Seq>) {
    let mut missing: HashSet<Seq> = numbers.collect();
    eventually!(SOON, {
        for sent in listener.take(1 << 20) {
            if let Sent::Event(entry, _) = sent {
                missing.remove(&entry.seq());
            }
        }
        ensure!(missing.is_empty(), "{missing:?} are missing");
        Ok(())
    });
}

#[tokio::test]
async fn a_panic_while_a_hole_is_filled_leaves_the_channel_to_be_healed() {
    let running = start(3).await;
    let mut listener = running.listen(Start::Live).await;
    eventually!(SOON, {
        let ready = listener.take(1 << 20);
        ensure!(matches!(ready[..], [Sent::Ready(..)]), "{ready:?}");
        Ok(())
    });
    // Polling finds the hole; the waker panics in the task that fills it.
    running.store.head.store(5, Relaxed);
    take(&mut listener, 4..=5).await;
    eventually!(SOON, {
        ensure!(running.metrics.pages_read.get() > 0, "no page was read");
        Ok(())
    });
    running.store.head.store(7, Relaxed);
    take(&mut listener, 6..=7).await;
    assert!(!running.life.is_shutting_down());
    running.life.shutdown();
}

#[tokio::test]
async fn a_panic_while_a_page_is_read_leaves_it_to_be_read_again() {
    let running = start(3).await;
    let beginning = chat_model::Position::new(head(1).epoch, 0);
    let starts = [(channel(), Start::After(beginning))];
    let mut listener = running.listen_to(&starts).await;
    let known = running.hub.channel(channel()).unwrap();
    eventually!(SOON, {
        let (_, generation) = known.mark();
        ensure!(generation > 0, "the store has not answered");
        Ok(())
    });
    let (_, generation) = known.mark();
    let reading = running.hub.pages.pretend_to_read(&known, generation);
    assert!(listener.take(1 << 20).is_empty(), "it is being read");
    running.life.spawn_transient(async move {
        let _reading = reading;
        panic!("on purpose");
    });
    take(&mut listener, 1..=3).await;
    assert_eq!(running.metrics.pages_read.get(), 1);
    running.life.shutdown();
}

#[tokio::test]
async fn a_slow_listener_of_a_busy_and_a_quiet_channel_gets_both() {
    let running = start(0).await;
    let channels = [1, 2].map(|n| ChannelId::from(uuid::Uuid::from_u128(n)));
    let [busy, quiet] = channels;
    let starts = channels.map(|id| (id, Start::Live));
    let mut listener = running.listen_to(&starts).await;
    eventually!(SOON, {
        let ready = listener.take(1 << 20);
        ensure!(matches!(ready[..], [Sent::Ready(..)]), "{ready:?}");
        Ok(())
    });
    // From here on nobody asks the store, which does not have these events.
    running.life.shutdown();
    running.life.wait(SOON).await.unwrap();
    let hear = |id, seq| {
        let channel = running.hub.channel(id).unwrap();
        channel.hear(std::iter::once(entry_of(id, seq)), |_| ());
    };
    (1..=9).for_each(|seq| hear(busy, seq));
    hear(quiet, 1);
    let mut got = Vec::new();
    for seq in 10..14 {
        hear(busy, seq);
        // Each turn has room for one event, and each turn another one arrives.
        for sent in listener.take(1) {
            let Sent::Event(entry, Some(cursor)) = sent else {
                panic!("an event with a cursor, not {sent:?}");
            };
            got.push((entry.seq(), cursor));
        }
    }
    let numbers: Vec<Seq> = got.iter().map(|(seq, _)| *seq).collect();
    assert_eq!(numbers, [1, 1, 2, 3], "the quiet one has its turn");
}

#[tokio::test]
async fn channel_whose_entry_is_damaged_does_not_hold_up_the_others_of_its_stream() {
    let running = start(3).await;
    let [sound, damaged] = [1, 2].map(|n| ChannelId::from(uuid::Uuid::from_u128(n)));
    running.store.damaged.set(damaged).unwrap();
    let beginning = chat_model::Position::new(head(1).epoch, 1);
    for start in [Start::Live, Start::After(beginning)] {
        let starts = [(damaged, start), (sound, Start::Live)];
        let mut listener = running.listen_to(&starts).await;
        let mut sent = Vec::new();
        eventually!(SOON, {
            sent.extend(listener.take(1 << 20));
            ensure!(
                matches!(sent.last(), Some(Sent::Ready(..))),
                "not ready: {sent:?}"
            );
            Ok(())
        });
        let [Sent::Gap(gap, None), Sent::Ready(positions, _)] = &sent[..] else {
            panic!("a gap and ready, not {sent:?}");
        };
        assert_eq!((gap.channel, gap.from), (damaged, None));
        assert!(positions.iter().any(|(id, at)| *id == sound && at.seq == 3));
    }
    running.life.shutdown();
}

#[tokio::test]
async fn a_caller_who_may_not_read_one_of_the_channels_joins_none() {
    let running = start(3).await;
    let starts = [channel(), forbidden()].map(|id| (id, Start::Live));
    let waker = Arc::new(tokio::sync::Notify::new());
    let caller = Caller::NOBODY;
    let refused = running.hub.listen(&caller, None, &starts, waker).await;
    let expected = Refusal::Forbidden {
        channel: forbidden(),
    };
    assert!(
        matches!(&refused, Err(ListenError::Refused(refusal)) if *refusal == expected),
        "{:?}",
        refused.err()
    );
    assert!(running.hub.all_channels().is_empty());
    running.life.shutdown();
}
