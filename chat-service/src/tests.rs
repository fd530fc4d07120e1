//! Tests of rights below the doors, with a real store: a caller without the right can neither post nor read.

use std::sync::Arc;

use chat_model::{ChannelId, NewMessage, Sender};
use chat_mqtt::BrokerState;
use chat_store::{PageLimit, PageRange, SqliteOptions, SqliteStore};
use clock::{SharedClock, SystemClock};
use http_server::client_address::Client;
use http_server::operations::Operations;
use rights::{Action, Caller, Decision, Refusal, Rights};
use tokio::sync::watch;
use uuid::Uuid;

use crate::failure::Failure;
use crate::ingest::{Ingest, Post, PostMetrics, Posted};
use crate::rate_limit::{Limits, Rate, RateLimiter};
use crate::reads::Reads;

/// Only Ann posts, and nobody reads the second channel.
struct AnnPosts;

fn open() -> ChannelId {
    Uuid::from_u128(1).into()
}

fn closed() -> ChannelId {
    Uuid::from_u128(2).into()
}

fn named(id: &str) -> Caller {
    Caller::Guest {
        claimed: Some(Sender {
            id: Some(id.to_owned()),
            name: None,
        }),
    }
}

impl Rights for AnnPosts {
    fn permit<'a>(
        &'a self,
        caller: &'a Caller,
        action: Action,
        channels: &'a [ChannelId],
    ) -> Decision<'a> {
        let refused = match action {
            Action::Post if *caller == named("ann") => None,
            Action::Post => channels.first(),
            Action::Read => channels.iter().find(|channel| **channel == closed()),
        };
        Decision::asked(async move {
            tokio::task::yield_now().await;
            refused.map_or(Ok(()), |&channel| Err(Refusal::Forbidden { channel }))
        })
    }
}

struct Service {
    ingest: Ingest,
    reads: Arc<Reads>,
    _folder: tempfile::TempDir,
}

fn start() -> Service {
    let folder = tempfile::tempdir().unwrap();
    let clock: SharedClock = SystemClock::shared();
    let options = SqliteOptions::new(folder.path(), clock.clone());
    let store = Arc::new(SqliteStore::open(&options).unwrap());
    let rate = || {
        let one = Some(Rate {
            per_second: 1e-6,
            burst: 3.0,
        });
        RateLimiter::new(Limits {
            requests: one,
            bytes: None,
            limits_loopback: true,
        })
    };
    let rights: Arc<dyn Rights> = Arc::new(AnnPosts);
    let (_broker, broker) = watch::channel(BrokerState::Up);
    let metrics = PostMetrics::register(&Operations::new());
    Service {
        ingest: Ingest::new(
            store.clone(),
            Arc::clone(&rights),
            rate(),
            clock.clone(),
            metrics,
            broker,
            64 * 1024,
        ),
        reads: Reads::new(store, rights, rate(), clock),
        _folder: folder,
    }
}

fn client() -> Client {
    Client::new([192, 0, 2, 1].into())
}

impl Service {
    async fn post(&self, caller: &Caller, channel: ChannelId) -> Result<Posted, Failure> {
        let turn = self.ingest.turn(client()).expect("within the rate");
        let post = Post {
            channel,
            message: NewMessage::text("hello"),
            key: None,
        };
        turn.post(caller, post).await
    }
}

fn is_refused<T>(result: &Result<T, Failure>, channel: ChannelId) -> bool {
    let forbidden = Refusal::Forbidden { channel };
    matches!(result, Err(Failure::Refused(refusal)) if *refusal == forbidden)
}

#[tokio::test]
async fn what_a_caller_may_not_post_is_not_stored() {
    let service = start();
    let refused = service.post(&named("bob"), open()).await;
    assert!(is_refused(&refused, open()), "{refused:?}");
    let posted = service.post(&named("ann"), open()).await.unwrap();
    assert!(matches!(posted, Posted::New { seq: 1, .. }), "{posted:?}");
}

#[tokio::test]
async fn a_message_is_stored_as_its_callers_whoever_it_says_it_is_from() {
    let service = start();
    let turn = service.ingest.turn(client()).expect("within the rate");
    let mut message = NewMessage::text("hello");
    message.from = named("bob").sender().cloned();
    let post = Post {
        channel: open(),
        message,
        key: None,
    };
    let Posted::New { event, .. } = turn.post(&named("ann"), post).await.unwrap() else {
        panic!("it is new");
    };
    let event = chat_model::EventView::parse(&event).unwrap();
    assert_eq!(event.from.id.as_deref(), Some("ann"));
}

#[tokio::test]
async fn what_a_caller_may_not_read_is_not_read() {
    let service = start();
    let caller = Caller::NOBODY;
    let read = service.reads.turn(None).unwrap();
    let newest = PageRange::Newest;
    let limit = PageLimit::events(1);
    let page = read.page(&caller, closed(), newest, limit).await;
    assert!(is_refused(&page.map(|_| ()), closed()));
    let heads = read.heads(&caller, &[open(), closed()]).await;
    assert!(is_refused(&heads, closed()), "{heads:?}");
    assert_eq!(read.heads(&caller, &[open()]).await.unwrap().len(), 1);
}

#[tokio::test]
async fn nobody_posts_or_reads_without_a_turn() {
    let service = start();
    for _ in 0..3 {
        assert!(service.ingest.turn(client()).is_ok());
        assert!(service.reads.turn(Some(client())).is_ok());
    }
    assert!(service.ingest.turn(client()).is_err());
    assert!(service.reads.turn(Some(client())).is_err());
    // A client that reads for many others is not counted.
    assert!(service.reads.turn(None).is_ok());
}
