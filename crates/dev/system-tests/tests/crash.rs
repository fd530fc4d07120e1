//! Processes die at random moments under load, and nobody notices anything but a delay.

use std::time::Duration;

use rand::RngExt;
use system_tests::{Chain, Load, seeded_random};

const KILLS: usize = 21;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_processes_cost_nothing_that_was_answered() {
    let mut random = seeded_random();
    let mut chain = Chain::start().await;
    let load = Load::start(&chain.sender(), |channel| chain.stream(&[channel])).await;
    for kill in 0..KILLS {
        // Somewhere within this kill's share of the load, whatever the machine's speed.
        let share = Load::POSTS / KILLS;
        let moment = kill * share + random.random_range(0..share);
        load.wait_for_posts(moment).await;
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
    load.verify().await;
}
