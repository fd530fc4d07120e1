//! A store whose writer a test can stop, and what it publishes.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::Duration;

use bytes::Bytes;
use chat_model::{ChannelId, EventHead};
use clock::{TestClock, Timestamp};
use parking_lot::Mutex;
use test_kit::Postgres;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::replica::Replica;
use super::stops::{Moment, Order};
pub(super) use super::stops::{Step, Stop};
use crate::postgres::options::Timing;
use crate::{Outbox, PageLimit, Position, PostgresOptions, PostgresStore};

pub(in crate::postgres) struct Control {
    armed: Mutex<Vec<(Step, Stop)>>,
    /// Stops at whatever statement it is: how many places go by before each, counted from the one
    /// before.
    queue: Mutex<VecDeque<(u32, Stop)>>,
    is_paused: AtomicBool,
    is_dead: AtomicBool,
    /// How many came by.
    pub(super) statements: AtomicU32,
    wake: Notify,
    replica: Arc<Replica>,
}

impl Control {
    fn new(replica: Arc<Replica>) -> Self {
        Self {
            armed: Mutex::default(),
            queue: Mutex::default(),
            is_paused: AtomicBool::new(false),
            is_dead: AtomicBool::new(false),
            statements: AtomicU32::new(0),
            wake: Notify::new(),
            replica,
        }
    }

    pub(super) fn arm(&self, step: Step, stop: Stop) {
        self.armed.lock().push((step, stop));
    }

    /// Stops the writer when it has gone by so many places more, after those that are armed
    /// already. Each statement has two, before and after; one is refused before.
    pub(super) fn arm_after(&self, places: u32, stop: Stop) {
        self.queue.lock().push_back((places, stop));
    }

    /// Goes on where it was paused, if it was.
    pub(super) fn wake(&self) {
        if self.is_paused.swap(false, SeqCst) {
            self.wake.notify_one();
        }
    }

    pub(super) fn disarm(&self) {
        self.armed.lock().clear();
        self.queue.lock().clear();
        self.wake();
    }

    pub(super) fn is_paused(&self) -> bool {
        self.is_paused.load(SeqCst)
    }

    /// Statements that were sent so far.
    pub(super) fn statements(&self) -> u32 {
        self.statements.load(SeqCst)
    }

    pub(super) fn is_dead(&self) -> bool {
        self.is_dead.load(SeqCst)
    }

    pub(super) fn stop_at_step(&self, moment: Moment, sql: &str) -> Option<Stop> {
        let mut armed = self.armed.lock();
        let found = armed
            .iter()
            .position(|(step, _)| step.place() == (moment, sql))?;
        Some(armed.remove(found).1)
    }

    pub(super) fn stop_here(&self, moment: Moment) -> Option<Stop> {
        let mut queue = self.queue.lock();
        let (places, stop) = queue.front_mut()?;
        if moment == Moment::After && matches!(stop, Stop::Refuse(_)) {
            return None;
        }
        if *places > 0 {
            *places -= 1;
            return None;
        }
        Some(queue.pop_front()?.1)
    }

    pub(super) async fn obey(&self, stop: Option<Stop>) -> Order {
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
        match stop {
            None => Order::GoOn,
            Some(Stop::Cut) => Order::Cut,
            Some(Stop::Refuse(code)) => Order::Refuse(code),
            Some(Stop::FailOver) => {
                self.replica.take_over().await;
                Order::Cut
            }
            Some(Stop::Kill) => {
                self.is_dead.store(true, SeqCst);
                std::future::pending().await
            }
            Some(Stop::Pause) => {
                self.is_paused.store(true, SeqCst);
                self.wake.notified().await;
                Order::GoOn
            }
        }
    }
}

/// What reached the broker, by whomever: the number and the events. A server that takes over may
/// give a number out again, in another epoch.
pub(super) type Published = Arc<Mutex<HashMap<(ChannelId, u64), HashSet<Bytes>>>>;

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
    pub(super) replica: Arc<Replica>,
}

impl Database {
    pub(super) async fn new() -> Self {
        let url = Postgres::shared().await.database().await;
        let name = url.rsplit('/').next().unwrap().to_owned();
        Self {
            replica: Arc::new(Replica::of(&name)),
            name,
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
        self.open_with(self.options()).await
    }

    pub(super) async fn open_with(&self, mut options: PostgresOptions) -> Instance {
        let control = Arc::new(Control::new(self.replica.clone()));
        options.stops = Some(control.clone());
        let store = Arc::new(PostgresStore::open(&options).await.unwrap());
        let publisher = publish(store.clone(), control.clone(), self.published.clone());
        Instance {
            store,
            control,
            publisher: Some(task(publisher)),
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

/// Runs a test's own task.
#[expect(
    clippy::disallowed_methods,
    reason = "a test's own task, which ends with it"
)]
pub(super) fn task<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> AbortOnDropHandle<T> {
    AbortOnDropHandle::new(tokio::spawn(work))
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
                    let mut published = published.lock();
                    published.entry(place).or_default().insert(entry.event);
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
