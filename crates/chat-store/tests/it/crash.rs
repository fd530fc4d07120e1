//! The process is killed in the middle of writing.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use chat_model::{EventHead, EventView};
use chat_store::{Log, PageLimit, PageRange, SqliteOptions, SqliteStore, Store};
use clock::SystemClock;

use crate::posts::{channel, text};

const DIR: &str = "HARK_TEST_STORE_DIR";
const CHANNELS: u64 = 5;

/// Posts from several tasks and says what was acknowledged, until it is killed.
#[test]
#[ignore = "the child process of everything_acknowledged_survives_a_kill"]
fn child_posts_until_killed() {
    let dir = std::env::var(DIR).expect("the parent names the folder");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let options = SqliteOptions::new(dir, SystemClock::shared());
        let store = SqliteStore::open(&options).unwrap();
        let posters: Vec<_> = (0..20_u64)
            .map(|poster| {
                let store = &store;
                Box::pin(async move {
                    for number in 0.. {
                        let number_of = (poster + number) % CHANNELS;
                        let words = format!("{poster}-{number}-{}", "x".repeat(2_000));
                        let stored = store.append(text(number_of.into(), words)).await.unwrap();
                        if let chat_store::Appended::Stored { seq, id, .. } = stored {
                            println!("ack {number_of} {seq} {id}");
                        }
                    }
                })
            })
            .collect();
        futures_join(posters).await;
    });
}

async fn futures_join<F: Future<Output = ()> + Unpin>(mut futures: Vec<F>) {
    std::future::poll_fn(|context| {
        for future in &mut futures {
            // None of them ever ends.
            assert!(std::pin::Pin::new(future).poll(context).is_pending());
        }
        std::task::Poll::<()>::Pending
    })
    .await;
}

#[tokio::test]
async fn everything_acknowledged_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: HashMap<(u64, u64), String> = HashMap::new();
    for kill in 1..=6 {
        acknowledged.extend(run_and_kill(dir.path(), kill * 150));
        verify(dir.path(), &acknowledged).await;
    }
    assert!(acknowledged.len() > 3_000);
}

fn run_and_kill(dir: &Path, after: usize) -> HashMap<(u64, u64), String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child_posts_until_killed"])
        .args(["--ignored", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut acknowledged = HashMap::new();
    let mut killed = false;
    // After the kill the pipe still has what was said before it.
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let mut words = line.split(' ');
        if let (Some("ack"), Some(at), Some(seq), Some(id)) =
            (words.next(), words.next(), words.next(), words.next())
            && id.len() == 36
        {
            let place = (at.parse().unwrap(), seq.parse().unwrap());
            let earlier = acknowledged.insert(place, id.to_owned());
            assert_eq!(earlier, None, "a number was given out twice");
        }
        if acknowledged.len() >= after && !std::mem::replace(&mut killed, true) {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(killed, "the child ended by itself");
    acknowledged
}

async fn verify(dir: &Path, acknowledged: &HashMap<(u64, u64), String>) {
    let store = SqliteStore::open(&SqliteOptions::new(dir, SystemClock::shared())).unwrap();
    let mut found = HashMap::new();
    for number in 0..CHANNELS {
        let mut after = 0;
        loop {
            let range = PageRange::After(after);
            let page = store.page(channel(number.into()), range, PageLimit::MAX);
            let page = page.await.unwrap();
            for event in &page.events {
                let head = EventHead::parse(event).unwrap();
                assert_eq!(head.seq, after + 1, "no holes");
                after = head.seq;
                let id = EventView::parse(event).unwrap().id.to_string();
                found.insert((number, after), id);
            }
            if page.events.is_empty() {
                assert_eq!(page.head.head, after);
                break;
            }
        }
    }
    for (place, id) in acknowledged {
        assert_eq!(found.get(place), Some(id), "{place:?}");
    }
    store.close().await;
}
