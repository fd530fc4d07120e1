//! What every message passes through: `cargo bench -p bench`.
//!
//! A frame of broadcast-sse is private to it; its two costly parts are here: reading the head of
//! an event, and encoding a cursor.

use std::sync::Arc;

use chat_model::{ChannelId, Cursor, Epoch, Event, EventHead, NewMessage, Position};
use chat_store::{Append, SqliteOptions, SqliteStore, Store};
use divan::{Bencher, black_box};
use service_kit::clock::SystemClock;
use uuid::Uuid;

fn main() {
    divan::main();
}

fn channel(number: usize) -> ChannelId {
    Uuid::from_u128(0xbe4c_0000_0000_4000_8000_0000_0000_0000 | number as u128).into()
}

fn message() -> NewMessage {
    NewMessage::text("x".repeat(100))
}

fn event(message: &NewMessage) -> Event<'_> {
    Event {
        channel: channel(1),
        epoch: Epoch::after(Epoch::ZERO, 1_790_000_000_000),
        seq: 123_456,
        id: Uuid::now_v7(),
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

#[divan::bench]
fn encode_event(bencher: Bencher<'_, '_>) {
    let message = message();
    let event = event(&message);
    bencher.bench(|| black_box(&event).encode());
}

#[divan::bench]
fn parse_event_head(bencher: Bencher<'_, '_>) {
    let line = event(&message()).encode();
    bencher.bench(|| EventHead::parse(black_box(&line)));
}

#[divan::bench(args = [1, 10, 100])]
fn encode_cursor(bencher: Bencher<'_, '_>, channels: usize) {
    let positions = positions(channels);
    bencher.bench(|| Cursor::encode(black_box(&positions).iter().copied()));
}

#[divan::bench(args = [1, 10, 100])]
fn parse_cursor(bencher: Bencher<'_, '_>, channels: usize) {
    let text = Cursor::encode(positions(channels));
    bencher.bench(|| Cursor::parse(black_box(&text)));
}

/// So many messages that are posted at once, until the last is on the disk of the temporary folder.
#[divan::bench(args = [1, 64], sample_count = 50, sample_size = 1)]
fn commit_batch(bencher: Bencher<'_, '_>, messages: usize) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = SqliteOptions::new(folder.path(), SystemClock::shared());
    let store = Arc::new(SqliteStore::open(&options).expect("a new store"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    let runtime = runtime.expect("a runtime");
    bencher.bench_local(|| {
        let tasks = tokio::task::LocalSet::new();
        for number in 0..messages {
            let store = Arc::clone(&store);
            tasks.spawn_local(async move {
                let append = Append {
                    channel: channel(number),
                    message: message(),
                    key: None,
                    max_event_bytes: 64 << 10,
                };
                store.append(append).await.expect("an empty disk takes it");
            });
        }
        runtime.block_on(tasks);
    });
    runtime.block_on(store.close());
}
