//! Processes die at random moments under load, and nobody notices anything but a delay.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use system_tests::{Chain, Posted, new_channel};
use test_kit::{Ledger, Recording, ensure, eventually};
use tokio::task::JoinSet;

const CHANNELS: usize = 20;
const LISTENERS_EACH: usize = 3;
const POSTS_EACH: usize = 250;
const POSTS: usize = CHANNELS * POSTS_EACH;
const KILLS: usize = 21;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_processes_cost_nothing_that_was_answered() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut chain = Chain::start().await;
    let channels: Vec<String> = (0..CHANNELS).map(|_| new_channel()).collect();
    let mut recordings = Vec::new();
    for channel in &channels {
        for _ in 0..LISTENERS_EACH {
            recordings.push((channel, Recording::ready(chain.stream(&[channel])).await));
        }
    }

    let taken = Arc::new(AtomicUsize::new(0));
    let mut senders = JoinSet::new();
    for channel in channels.clone() {
        let (sender, taken) = (chain.sender(), Arc::clone(&taken));
        senders.spawn(async move {
            let mut all: Vec<Posted> = Vec::new();
            for number in 0..POSTS_EACH {
                all.push(
                    sender
                        .post_until_taken(&channel, &format!("post {number}"))
                        .await,
                );
                taken.fetch_add(1, Ordering::Relaxed);
            }
            (channel, all)
        });
    }

    for kill in 0..KILLS {
        // Somewhere within this kill's share of the load, whatever the machine's speed.
        let moment = random.random_range(0..POSTS / KILLS) + kill * (POSTS / KILLS);
        eventually!(Duration::from_secs(120), {
            let now = taken.load(Ordering::Relaxed);
            ensure!(
                now >= moment,
                "{now} posts taken, waiting for {moment} to kill"
            );
            Ok(())
        });
        let (name, victim) = match random.random_range(0..3) {
            0 => ("broker", &mut chain.broker),
            1 => ("chat-service", &mut chain.chat),
            _ => ("broadcast-sse", &mut chain.sse),
        };
        println!("kill {kill}: {name} at {moment} posts");
        victim.kill().await;
        // It is away for a moment of any length, as with a supervisor.
        tokio::time::sleep(Duration::from_millis(random.random_range(0..400))).await;
        victim.start().await;
    }

    let mut answered = BTreeMap::new();
    while let Some(sent) = senders.join_next().await {
        let (channel, all) = sent.unwrap();
        answered.insert(channel, all);
    }
    assert_eq!(answered.values().map(Vec::len).sum::<usize>(), POSTS);

    for (channel, recording) in &recordings {
        recording
            .wait_for(Duration::from_secs(60), "message", POSTS_EACH)
            .await;
        let mut ledger = Ledger::default().starting_after(channel, 0);
        for event in recording.events() {
            ledger
                .enter(&event)
                .unwrap_or_else(|why| panic!("{why}: {event:?}"));
        }
        assert_eq!(ledger.gaps(channel), []);
        let got: Vec<&str> = ledger
            .delivered(channel)
            .iter()
            .map(|message| message.line.as_str())
            .collect();
        // One sender a channel, so the order of the answers is the order of the log.
        let sent: Vec<&str> = answered[*channel]
            .iter()
            .map(|posted| posted.line.as_str())
            .collect();
        assert_eq!(got, sent);
    }
}
