//! Whatever writers are stopped, cut off, refused or killed at, also when a replica takes over, every
//! channel stays dense, what was answered is there once (or went with the server that had it), what
//! was refused is not, and all of it is published by somebody.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chat_model::{EventView, NewMessage};
use proptest::prelude::*;
use test_kit::{ensure, eventually};
use uuid::Uuid;

use super::control::Step::{self, *};
use super::control::{Database, Instance, Stop, channel};
use crate::{Append, Appended, Log, Owner, PageLimit, PageRange, Store, StoreError};

/// Some of them several times: what happens around COMMIT is what matters most.
const STEPS: &[Step] = &[
    Commit,
    Commit,
    Committed,
    Committed,
    Committed,
    Committed,
    LockChannels,
    InsertEvents,
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
    Rescue,
    Rescued,
    Rescued,
];
const INSTANCES: usize = 3;
const CHANNELS: u128 = 3;

#[derive(Debug, Clone)]
enum Operation {
    /// Posts that arrive together, to the channels; some with an id of the sender's.
    Post(usize, Vec<(u128, Option<u8>)>),
    /// The next time that it comes to this step.
    Stop(usize, Step, Stop),
    /// At whatever statements these are, one after the other: how many places go by before each.
    StopAnywhere(usize, Vec<(u32, Stop)>),
    /// The replica that may take over receives what is committed.
    CatchUp,
    Wake(usize),
    EndLeases,
    /// The server ends a session.
    Terminate,
    /// Everyone who can has answered.
    Settle,
    /// Days go by, and a new segment begins.
    NextSegment(usize),
    NewEpoch(usize),
    /// A killed instance starts again.
    Restart(usize),
}

fn operation() -> impl Strategy<Value = Operation> {
    let instance = 0..INSTANCES;
    let id = prop_oneof![3 => Just(None), 1 => (0..6_u8).prop_map(Some)];
    let posts = prop::collection::vec((0..CHANNELS, id), 1..5);
    let stop = prop_oneof![
        3 => Just(Stop::Pause),
        3 => Just(Stop::Cut),
        2 => Just(Stop::Kill),
    ];
    let anywhere = prop_oneof![
        4 => Just(Stop::Cut),
        2 => Just(Stop::FailOver),
        1 => Just(Stop::Pause),
        1 => Just(Stop::Kill),
        // Disk full, deadlock, time-out, bad data.
        2 => prop::sample::select(vec!["53100", "40P01", "57014", "22P05"]).prop_map(Stop::Refuse),
    ];
    // About the places of a batch, and of a connection that is made anew.
    let stops = prop::collection::vec((0..16_u32, anywhere), 1..4);
    prop_oneof![
        10 => (instance.clone(), posts).prop_map(|(i, posts)| Operation::Post(i, posts)),
        8 => (instance.clone(), prop::sample::select(STEPS), stop)
            .prop_map(|(i, step, stop)| Operation::Stop(i, step, stop)),
        6 => (instance.clone(), stops).prop_map(|(i, stops)| Operation::StopAnywhere(i, stops)),
        2 => Just(Operation::CatchUp),
        3 => instance.clone().prop_map(Operation::Wake),
        2 => Just(Operation::EndLeases),
        1 => Just(Operation::Terminate),
        3 => Just(Operation::Settle),
        1 => instance.clone().prop_map(Operation::NextSegment),
        1 => instance.clone().prop_map(Operation::NewEpoch),
        3 => instance.prop_map(Operation::Restart),
    ]
}

type Answer = Result<Appended, StoreError>;

/// A post and what is known of it: `None` while there is no answer.
struct Asked {
    instance: usize,
    channel: u128,
    id: Option<u8>,
    text: String,
    answer: Arc<parking_lot::Mutex<Option<Answer>>>,
}

struct Run {
    database: Database,
    instances: Vec<Instance>,
    /// Killed ones; their connections stay open.
    graves: Vec<Instance>,
    asked: Vec<Asked>,
    life: service_kit::lifecycle::Lifecycle,
}

impl Run {
    async fn new() -> Self {
        let database = Database::new().await;
        let mut instances = Vec::new();
        for _ in 0..INSTANCES {
            instances.push(database.open().await);
        }
        Self {
            database,
            instances,
            graves: Vec::new(),
            asked: Vec::new(),
            life: service_kit::lifecycle::Lifecycle::new(),
        }
    }

    async fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Post(instance, posts) => {
                for (channel, id) in posts {
                    self.post(instance, channel, id);
                }
            }
            Operation::Stop(instance, step, stop) => {
                self.instances[instance].control.arm(step, stop);
            }
            Operation::StopAnywhere(instance, stops) => {
                for (places, stop) in stops {
                    self.instances[instance].control.arm_after(places, stop);
                }
            }
            Operation::CatchUp => self.database.replica.catch_up().await,
            Operation::Wake(instance) => self.instances[instance].control.wake(),
            Operation::EndLeases => self.database.end_leases().await,
            Operation::Terminate => {
                self.database
                    .run(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                         WHERE datname = current_database() AND application_name = 'hark'
                         ORDER BY random() LIMIT 1",
                    )
                    .await;
            }
            Operation::Settle => self.settle().await,
            Operation::NextSegment(instance) => {
                self.database
                    .clock
                    .advance(Duration::from_secs(4_001 * 24 * 3600));
                // One that is busy or cut off does it another time.
                let store = &self.instances[instance].store;
                drop(tokio::time::timeout(Duration::from_millis(300), store.expire()).await);
            }
            Operation::NewEpoch(instance) => {
                let store = self.instances[instance].store.clone();
                self.life.spawn_transient(async move {
                    drop(store.new_epoch().await);
                });
            }
            Operation::Restart(instance) => {
                if self.instances[instance].control.is_dead() {
                    let fresh = self.database.open().await;
                    let mut dead = std::mem::replace(&mut self.instances[instance], fresh);
                    dead.bury();
                    self.graves.push(dead);
                    // It never answers.
                    for asked in &mut self.asked {
                        if asked.instance == instance {
                            asked.instance = usize::MAX;
                        }
                    }
                }
            }
        }
    }

    fn post(&mut self, instance: usize, number: u128, id: Option<u8>) {
        // With an id, the same message; else another one each time.
        let text = match id {
            Some(id) => format!("{number} with id {id}"),
            None => format!("post {}", self.asked.len()),
        };
        let mut message = NewMessage::text(text.clone());
        message.id = id.map(|id| Uuid::from_u128(u128::from(id) + 1));
        let new = Append {
            channel: channel(number),
            message,
            key: None,
            owner: Owner::default(),
            max_event_bytes: 64 * 1024,
        };
        let answer = Arc::new(parking_lot::Mutex::new(None));
        self.asked.push(Asked {
            instance,
            channel: number,
            id,
            text,
            answer: answer.clone(),
        });
        let store = self.instances[instance].store.clone();
        self.life.spawn_transient(async move {
            let outcome = store.append(new).await;
            *answer.lock() = Some(outcome);
        });
    }

    /// Waits until everyone has answered who is neither stopped nor waits for one that is.
    async fn settle(&self) {
        let alive = |asked: &&Asked| {
            let instance = self.instances.get(asked.instance);
            instance.is_some_and(|i| !i.control.is_dead() && !i.control.is_paused())
        };
        eventually!(Duration::from_secs(20), {
            let open = self.asked.iter().filter(alive);
            let open = open.filter(|asked| asked.answer.lock().is_none());
            ensure!(open.count() == 0, "posts without an answer");
            Ok(())
        });
    }

    /// Everyone goes on, one more instance comes, and all is checked.
    async fn check(mut self) {
        for instance in &self.instances {
            instance.control.disarm();
        }
        for instance in &mut self.instances {
            instance.bury();
        }
        self.settle().await;
        let reader = self.database.open().await;
        let mut logs = HashMap::new();
        for number in 0..CHANNELS {
            // A replica may be about to take over, which ends each session twice.
            let page = eventually!(Duration::from_secs(20), {
                let all = PageRange::After(0);
                let page = reader.store.page(channel(number), all, PageLimit::MAX);
                Ok(page.await?)
            });
            assert_eq!(
                page.head.head,
                page.events.len() as u64,
                "dense and complete"
            );
            assert!(
                page.head
                    .epochs
                    .is_sorted_by(|a, b| a.epoch < b.epoch && a.from <= b.from)
            );
            logs.insert(number, page.events);
        }
        self.check_answers(&logs);
        self.check_published(&logs).await;
    }

    fn check_answers(&self, logs: &HashMap<u128, Vec<bytes::Bytes>>) {
        let mut times: HashMap<(u128, String), usize> = HashMap::new();
        for (number, events) in logs {
            for (place, event) in events.iter().enumerate() {
                let head = chat_model::EventHead::parse(event).unwrap();
                assert_eq!(
                    (head.channel, head.seq),
                    (channel(*number), place as u64 + 1)
                );
                let text = EventView::parse(event).unwrap().text.unwrap().into_owned();
                *times.entry((*number, text)).or_default() += 1;
            }
        }
        for asked in &self.asked {
            let found = times
                .get(&(asked.channel, asked.text.clone()))
                .copied()
                .unwrap_or(0);
            let what = &asked.text;
            assert!(found <= 1, "{what} is there {found} times");
            match &*asked.answer.lock() {
                Some(Ok(
                    Appended::Stored { event, seq, .. }
                    | Appended::Repeated {
                        event: Some(event),
                        seq,
                        ..
                    },
                )) => {
                    let kept = logs[&asked.channel].get(*seq as usize - 1);
                    let is_kept = kept == Some(event);
                    let is_lost = self.database.replica.has_lost(event);
                    assert!(
                        is_kept || is_lost,
                        "{what} was answered otherwise: {kept:?}"
                    );
                }
                Some(Ok(Appended::Repeated { event: None, .. })) => {
                    panic!("{what}: nothing expires here")
                }
                // The same id may have been stored by another post.
                Some(Err(StoreError::Unavailable { reason })) if asked.id.is_none() => {
                    assert_eq!(found, 0, "{what} was refused: {reason}");
                }
                Some(Err(StoreError::Unavailable { .. } | StoreError::OutcomeUnknown { .. }))
                | None => {}
                Some(Err(other)) => panic!("{what}: {other}"),
            }
        }
    }

    async fn check_published(&self, logs: &HashMap<u128, Vec<bytes::Bytes>>) {
        eventually!(Duration::from_secs(20), {
            let published = self.database.published.lock().clone();
            for (number, events) in logs {
                for (place, event) in events.iter().enumerate() {
                    let sent = published.get(&(channel(*number), place as u64 + 1));
                    let is_sent = sent.is_some_and(|sent| sent.contains(event));
                    ensure!(is_sent, "{number}/{} is not published", place + 1);
                }
            }
            Ok(())
        });
    }
}

async fn run(operations: Vec<Operation>) {
    let mut run = Run::new().await;
    for operation in operations {
        run.apply(operation).await;
    }
    run.check().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 100, ..ProptestConfig::default() })]

    #[test]
    fn stopped_writers_lose_and_double_nothing(operations in prop::collection::vec(operation(), 1..24)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(operations));
    }
}
