//! A store whose writer a test can stop, and what it publishes.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use chat_model::{ChannelId, EventHead};
use service_kit::clock::{TestClock, Timestamp};
use test_kit::Postgres;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::{
    PageLimit, Position, PostgresOptions, PostgresStore, Store,
    postgres::{
        options::Timing,
        steps::{Hook, Step, Steps},
    },
};

/// What becomes of a writer at a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// It waits there until it is woken, its connection open.
    Pause,
    /// Its connection is lost there.
    Cut,
    /// Its process is gone there, without a word to the server.
    Kill,
}

#[derive(Default)]
pub(super) struct Control {
    armed: Mutex<Vec<(Step, Stop)>>,
    is_paused: AtomicBool,
    is_dead: AtomicBool,
    wake: Notify,
}

impl Control {
    pub(super) fn arm(&self, step: Step, stop: Stop) {
        self.armed.lock().unwrap().push((step, stop));
    }

    /// Goes on where it was paused, if it was.
    pub(super) fn wake(&self) {
        if self.is_paused.swap(false, SeqCst) {
            self.wake.notify_one();
        }
    }

    pub(super) fn disarm(&self) {
        self.armed.lock().unwrap().clear();
        self.wake();
    }

    pub(super) fn is_paused(&self) -> bool {
        self.is_paused.load(SeqCst)
    }

    pub(super) fn is_dead(&self) -> bool {
        self.is_dead.load(SeqCst)
    }

    fn stop_at(&self, step: Step) -> Option<Stop> {
        let mut armed = self.armed.lock().unwrap();
        let found = armed.iter().position(|(at, _)| *at == step)?;
        Some(armed.remove(found).1)
    }
}

#[async_trait::async_trait]
impl Hook for Control {
    async fn at(&self, step: Step) -> bool {
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
        match self.stop_at(step) {
            None => true,
            Some(Stop::Cut) => false,
            Some(Stop::Kill) => {
                self.is_dead.store(true, SeqCst);
                std::future::pending().await
            }
            Some(Stop::Pause) => {
                self.is_paused.store(true, SeqCst);
                self.wake.notified().await;
                true
            }
        }
    }
}

/// What reached the broker, by whomever: the number and the event.
pub(super) type Published = Arc<Mutex<HashMap<(ChannelId, u64), Bytes>>>;

/// An open store, and the task that publishes from it.
pub(super) struct Instance {
    pub(super) store: Arc<PostgresStore>,
    pub(super) control: Arc<Control>,
    publisher: Option<AbortOnDropHandle<()>>,
}

impl Instance {
    /// Its process is gone, if its writer was killed: it publishes nothing more either.
    pub(super) fn bury(&mut self) {
        if self.control.is_dead() {
            self.publisher = None;
        }
    }
}

pub(super) struct Database {
    pub(super) url: String,
    name: String,
    pub(super) clock: TestClock,
    pub(super) published: Published,
}

impl Database {
    pub(super) async fn new() -> Self {
        let url = Postgres::shared().await.database().await;
        Self {
            name: url.rsplit('/').next().unwrap().to_owned(),
            url,
            // 2026-11-21T09:00:00Z.
            clock: TestClock::new(Timestamp::from_millis(1_795_251_600_000)),
            published: Published::default(),
        }
    }

    /// With everything short that a test waits for.
    pub(super) fn options(&self) -> PostgresOptions {
        let mut options = PostgresOptions::new(&self.url, self.clock.shared());
        options.statement_timeout = Duration::from_secs(1);
        options.connections = 1;
        // Longer than all the days that go by.
        options.keys.max_age = Duration::from_secs(64_000 * 24 * 3600);
        options.retention.max_age = options.keys.max_age;
        options.timing = Timing {
            lease: Duration::from_millis(300),
            idle_transaction: Duration::from_millis(150),
            patience: Duration::from_secs(2),
        };
        options
    }

    pub(super) async fn open(&self) -> Instance {
        let control = Arc::new(Control::default());
        let mut options = self.options();
        options.steps = Steps {
            hook: Some(control.clone()),
        };
        let store = Arc::new(PostgresStore::open(&options).await.unwrap());
        let publisher = publish(store.clone(), control.clone(), self.published.clone());
        #[expect(
            clippy::disallowed_methods,
            reason = "a test's own task, which ends with it"
        )]
        let publisher = tokio::spawn(publisher);
        Instance {
            store,
            control,
            publisher: Some(AbortOnDropHandle::new(publisher)),
        }
    }

    pub(super) async fn run(&self, sql: &str) -> String {
        let sql = format!("SET search_path = hark; {sql}");
        Postgres::shared().await.run(&self.name, &sql).await
    }

    /// Every lease runs out now, but those whose row somebody holds.
    pub(super) async fn end_leases(&self) {
        self.run(
            "UPDATE lanes SET lease_until = '-infinity' WHERE lane IN
                (SELECT lane FROM lanes FOR UPDATE SKIP LOCKED)",
        )
        .await;
    }
}

/// Publishes as the outbox does: at most once a store is asked where to begin, it follows, reads
/// what is there, and then takes what comes.
async fn publish(store: Arc<PostgresStore>, control: Arc<Control>, published: Published) {
    let mut sent = Position::START;
    loop {
        let mut commits = store.follow(3);
        let Ok(mark) = store.published_to().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        if mark.lane() != sent.lane() || mark > sent {
            sent = mark;
        }
        let acknowledge = |entries: Vec<crate::Unpublished>, sent: &mut Position| {
            for entry in entries {
                // The killed take nothing to the broker.
                if entry.position > *sent && !control.is_dead() {
                    let head = EventHead::parse(&entry.event).unwrap();
                    assert_eq!(head.channel, entry.channel);
                    let place = (head.channel, head.seq);
                    published.lock().unwrap().insert(place, entry.event);
                    *sent = entry.position;
                    store.mark_published(*sent);
                }
            }
        };
        loop {
            match store.unpublished(sent, PageLimit::events(4)).await {
                Ok(page) if page.is_empty() => break,
                Ok(page) => acknowledge(page, &mut sent),
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
        while let Some(batch) = commits.recv().await {
            acknowledge(batch, &mut sent);
        }
    }
}

pub(super) fn channel(number: u128) -> ChannelId {
    Uuid::from_u128(number).into()
}
