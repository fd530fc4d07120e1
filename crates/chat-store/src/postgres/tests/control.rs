//! A store whose writer a test can stop, and what it publishes.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
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
use crate::postgres::failure::Failure;
use crate::postgres::options::Timing;
use crate::postgres::statements::{
    BEGIN, BEGIN_BATCH, COMMIT, ENTER, FIND_KEYS, INSERT_EVENTS, JUDGE, REMEMBER_KEYS, RENEW,
    RESCUE, UPDATE_CHANNELS,
};
use crate::{Outbox, PageLimit, Position, PostgresOptions, PostgresStore};

/// What the writer is about to do, or has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    LockLane,
    TakeLane,
    RenewLane,
    Begin,
    LockChannels,
    FindKeys,
    InsertEvents,
    UpdateChannels,
    RememberKeys,
    Commit,
    Committed,
    Rescue,
    Rescued,
}

/// Before a statement, or when its answer is there and not yet known to the writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Before,
    After,
}

impl Step {
    fn place(self) -> (Moment, &'static str) {
        match self {
            Self::LockLane => (Moment::Before, JUDGE),
            Self::TakeLane => (Moment::Before, ENTER),
            Self::RenewLane => (Moment::Before, RENEW),
            Self::Begin => (Moment::Before, BEGIN),
            Self::LockChannels => (Moment::Before, BEGIN_BATCH),
            Self::FindKeys => (Moment::Before, FIND_KEYS),
            Self::InsertEvents => (Moment::Before, INSERT_EVENTS),
            Self::UpdateChannels => (Moment::Before, UPDATE_CHANNELS),
            Self::RememberKeys => (Moment::Before, REMEMBER_KEYS),
            Self::Commit => (Moment::Before, COMMIT),
            Self::Committed => (Moment::After, COMMIT),
            Self::Rescue => (Moment::Before, RESCUE),
            Self::Rescued => (Moment::After, RESCUE),
        }
    }
}

/// Who decides what becomes of a connection's statements, and whether it was cut.
#[derive(Default)]
pub(in crate::postgres) struct Stops {
    control: MayBeStopped,
    is_cut: AtomicBool,
}

pub(in crate::postgres) type MayBeStopped = Option<Arc<Control>>;

impl Stops {
    pub(in crate::postgres) fn by(control: &MayBeStopped) -> Self {
        Self {
            control: control.clone(),
            is_cut: AtomicBool::new(false),
        }
    }

    pub(in crate::postgres) async fn before(
        &self,
        sql: &str,
        client: &tokio_postgres::Client,
    ) -> Result<(), Failure> {
        match self.meet(Moment::Before, sql).await? {
            // The server's own error, which ends its transaction as any other does.
            Some(code) => {
                let raise = format!(
                    "DO $$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = '{code}'; END $$"
                );
                let refused = client.batch_execute(&raise).await;
                Err(refused.expect_err("it raises").into())
            }
            None => Ok(()),
        }
    }

    pub(in crate::postgres) async fn after(&self, sql: &str) -> Result<(), Failure> {
        self.meet(Moment::After, sql).await.map(drop)
    }

    /// The error with which the server is to refuse the statement, if it is.
    async fn meet(&self, moment: Moment, sql: &str) -> Result<Option<&'static str>, Failure> {
        let Some(control) = &self.control else {
            return Ok(None);
        };
        // Nothing more comes through, as in a network that is cut.
        let lost = || Failure::Lost(format!("cut {moment:?}: {sql}"));
        if self.is_cut.load(SeqCst) {
            return Err(lost());
        }
        for is_named in [true, false] {
            let stop = match is_named {
                true => control.stop_at_step(moment, sql),
                false => control.stop_here(moment),
            };
            match control.obey(stop).await {
                Order::GoOn => {}
                Order::Refuse(code) => return Ok(Some(code)),
                Order::Cut => {
                    self.is_cut.store(true, SeqCst);
                    return Err(lost());
                }
            }
        }
        Ok(None)
    }
}

enum Order {
    GoOn,
    Cut,
    Refuse(&'static str),
}

/// What becomes of a writer at a step or a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// It waits there until it is woken, its connection open.
    Pause,
    /// Its connection is lost there.
    Cut,
    /// Its process is gone there, without a word to the server.
    Kill,
    /// The server refuses the statement, with this SQLSTATE.
    Refuse(&'static str),
    /// The server is gone there, and the replica takes over with what it has.
    FailOver,
}

pub(in crate::postgres) struct Control {
    armed: Mutex<Vec<(Step, Stop)>>,
    /// Stops at whatever statement it is: how many places go by before each, counted from the one
    /// before.
    queue: Mutex<VecDeque<(u32, Stop)>>,
    is_paused: AtomicBool,
    is_dead: AtomicBool,
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

    pub(super) fn is_dead(&self) -> bool {
        self.is_dead.load(SeqCst)
    }

    fn stop_at_step(&self, moment: Moment, sql: &str) -> Option<Stop> {
        let mut armed = self.armed.lock();
        let found = armed
            .iter()
            .position(|(step, _)| step.place() == (moment, sql))?;
        Some(armed.remove(found).1)
    }

    fn stop_here(&self, moment: Moment) -> Option<Stop> {
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

    async fn obey(&self, stop: Option<Stop>) -> Order {
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
