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
const SENDERS_EACH: usize = 5;
const POSTS_EACH: usize = 50;
const POSTS_A_CHANNEL: usize = SENDERS_EACH * POSTS_EACH;
const POSTS: usize = CHANNELS * POSTS_A_CHANNEL;
const KILLS: usize = 21;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_processes_cost_nothing_that_was_answered() {
    let given = std::env::var("CRASH_SEED").ok();
    let seed: u64 = given.map_or_else(rand::random, |seed| seed.parse().unwrap());
    println!("seed {seed}: CRASH_SEED={seed} repeats the kills");
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
    for (channel, number) in channels
        .iter()
        .flat_map(|channel| (0..SENDERS_EACH).map(move |number| (channel, number)))
    {
        let (sender, channel, taken) = (chain.sender(), channel.clone(), Arc::clone(&taken));
        senders.spawn(async move {
            let mut all: Vec<Posted> = Vec::new();
            for post in 0..POSTS_EACH {
                all.push(
                    sender
                        .post_until_taken(&channel, &format!("{number}: {post}"))
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

    let mut answered: BTreeMap<String, BTreeMap<u64, String>> = BTreeMap::new();
    while let Some(sent) = senders.join_next().await {
        let (channel, all) = sent.unwrap();
        let answered = answered.entry(channel).or_default();
        answered.extend(all.into_iter().map(|posted| (posted.seq(), posted.line)));
    }
    for (channel, recording) in &recordings {
        recording
            .wait_for(Duration::from_secs(60), "message", POSTS_A_CHANNEL)
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
        // No number was given to two posts, and no post has two numbers.
        let sent: Vec<&str> = answered[*channel].values().map(String::as_str).collect();
        assert_eq!(sent.len(), POSTS_A_CHANNEL);
        assert_eq!(got, sent);
    }
}
