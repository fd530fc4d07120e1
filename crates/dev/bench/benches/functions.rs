//! What every message passes through.

use std::hint::black_box;
use std::sync::Arc;

use bench::Function;
use broadcast_sse::bench_support;
use chat_model::{
    ChannelId, Cursor, Epoch, EpochStart, Event, EventHead, Head, NewMessage, Position,
};
use chat_store::{Append, Log, Owner, SqliteOptions, SqliteStore, Store};
use clock::SystemClock;
use tokio::runtime::Runtime;
use uuid::Uuid;

/// Those that only compute.
pub(crate) const FUNCTIONS: &[Function] = &[
    of_one_thread("encode_event", || {
        let (message, id) = (message(), Uuid::now_v7());
        Box::new(move || drop(black_box(event(black_box(&message), id).encode())))
    }),
    of_one_thread("parse_event_head", || {
        let line = event(&message(), Uuid::now_v7()).encode();
        Box::new(move || drop(black_box(EventHead::parse(black_box(&line)))))
    }),
    of_one_thread("encode_cursor_of_1", || encode_cursor(1)),
    of_one_thread("encode_cursor_of_10", || encode_cursor(10)),
    of_one_thread("encode_cursor_of_100", || encode_cursor(100)),
    of_one_thread("parse_cursor_of_1", || parse_cursor(1)),
    of_one_thread("parse_cursor_of_10", || parse_cursor(10)),
    of_one_thread("parse_cursor_of_100", || parse_cursor(100)),
    of_one_thread("frame", || {
        let line = event(&message(), Uuid::now_v7()).encode();
        Box::new(move || {
            drop(black_box(bench_support::frame(
                channel(1),
                black_box(&line),
            )));
        })
    }),
    dispatch("dispatch_to_1", 1_000, || dispatch_to(1)),
    dispatch("dispatch_to_1000", 50, || dispatch_to(1_000)),
    dispatch("dispatch_to_100000", 4, || dispatch_to(100_000)),
];

/// So many messages that are posted at once, until the last is on the disk of the temporary folder.
pub(crate) const COMMITS: &[Function] = &[
    commit("commit_1", || commit_batch(1)),
    commit("commit_64", || commit_batch(64)),
];

const fn of_one_thread(name: &'static str, prepare: fn() -> Box<dyn FnMut()>) -> Function {
    Function {
        name,
        calls: 2_000,
        threads: false,
        prepare,
    }
}

const fn dispatch(name: &'static str, calls: u32, prepare: fn() -> Box<dyn FnMut()>) -> Function {
    Function {
        name,
        calls,
        threads: false,
        prepare,
    }
}

const fn commit(name: &'static str, prepare: fn() -> Box<dyn FnMut()>) -> Function {
    Function {
        name,
        calls: 50,
        threads: true,
        prepare,
    }
}

fn encode_cursor(channels: usize) -> Box<dyn FnMut()> {
    let positions = positions(channels);
    Box::new(move || {
        let positions = black_box(&positions).iter().copied();
        drop(black_box(Cursor::encode(positions)));
    })
}

fn parse_cursor(channels: usize) -> Box<dyn FnMut()> {
    let text = Cursor::encode(positions(channels));
    Box::new(move || drop(black_box(Cursor::parse(black_box(&text)))))
}

/// One event from the broker to so many listeners of its channel, up to what would be written.
/// Encoding the event is part of it, for each needs a number of its own.
fn dispatch_to(listeners: usize) -> Box<dyn FnMut()> {
    let (message, id) = (message(), Uuid::now_v7());
    let first = event(&message, id);
    let head = Head {
        channel: first.channel,
        epoch: first.epoch,
        head: first.seq,
        first: first.seq,
        epochs: vec![EpochStart {
            epoch: first.epoch,
            from: 1,
        }],
    };
    let Event { epoch, mut seq, .. } = first;
    let mut dispatch = bench_support::dispatch(&head, listeners);
    Box::new(move || {
        seq += 1;
        let event = Event {
            epoch,
            seq,
            ..event(&message, id)
        };
        let bytes = dispatch.deliver(&event.encode());
        assert!(bytes > listeners * 100, "everyone gets every event");
    })
}

fn commit_batch(messages: usize) -> Box<dyn FnMut()> {
    let disk = Disk::new();
    Box::new(move || disk.commit(messages))
}

fn channel(number: usize) -> ChannelId {
    Uuid::from_u128(0xbe4c_0000_0000_4000_8000_0000_0000_0000 | number as u128).into()
}

fn message() -> NewMessage {
    NewMessage::text("x".repeat(100))
}

fn event(message: &NewMessage, id: Uuid) -> Event<'_> {
    Event {
        channel: channel(1),
        epoch: Epoch::after(Epoch::ZERO, 1_790_000_000_000),
        seq: 123_456,
        id,
        at: 1_790_000_000_000,
        message,
    }
}

fn positions(channels: usize) -> Vec<(ChannelId, Position)> {
    let epoch = Epoch::after(Epoch::ZERO, 1_790_000_000_000);
    let position = Position::new(epoch, 123_456);
    (0..channels)
        .map(|number| (channel(number), position))
        .collect()
}

/// A store in a folder of its own, and what drives its futures.
struct Disk {
    store: Arc<SqliteStore>,
    runtime: Runtime,
    _folder: tempfile::TempDir,
}

impl Disk {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options = SqliteOptions::new(folder.path(), SystemClock::shared());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        Self {
            store: Arc::new(SqliteStore::open(&options).expect("a new store")),
            runtime: runtime.expect("a runtime"),
            _folder: folder,
        }
    }

    fn commit(&self, messages: usize) {
        let tasks = tokio::task::LocalSet::new();
        for number in 0..messages {
            let store = Arc::clone(&self.store);
            tasks.spawn_local(async move {
                let append = Append {
                    channel: channel(number),
                    message: message(),
                    key: None,
                    owner: Owner::default(),
                    max_event_bytes: 64 << 10,
                };
                store.append(append).await.expect("an empty disk takes it");
            });
        }
        self.runtime.block_on(tasks);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.runtime.block_on(self.store.close());
    }
}
