//! Several nodes of everything: they die in turn under load, while listeners resume on any of
//! them, and nobody notices anything but a delay.

use std::time::Duration;

use rand::RngExt;
use system_tests::{Cluster, Load, Size, seeded_random};
use test_kit::FaultProxy;

const ROUNDS: usize = 2;
const VICTIMS: usize = 4;
/// A killed node comes back within this time.
const AWAY: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_die_in_turn_and_nothing_that_was_answered_is_lost() {
    let mut random = seeded_random();
    let mut cluster = Cluster::start(Size {
        broker_nodes: 3,
        ..Size::default()
    })
    .await;
    let listeners = FaultProxy::start(cluster.front.address()).await;
    let stream = |channel: &str| format!("http://{}/events?c={channel}", listeners.address());
    let load = Load::start(&cluster.sender(), stream).await;
    let share = Load::POSTS / (ROUNDS * VICTIMS);
    for fault in 0..ROUNDS * VICTIMS {
        // Somewhere within this fault's share of the load, whatever the machine's speed.
        let moment = fault * share + random.random_range(0..share / 2);
        load.wait_for_posts(moment).await;
        let away = random.random_range(Duration::ZERO..AWAY);
        let which = random.random_range(0..6);
        println!("fault {fault} at {moment} posts, away for {away:?}");
        match fault % VICTIMS {
            0 => {
                let node = which % cluster.broker.addresses().len();
                cluster.broker.kill(node).await;
                tokio::time::sleep(away).await;
                cluster.broker.restart(node).await;
            }
            1 => {
                let count = cluster.chat.len();
                let chat = &mut cluster.chat[which % count];
                chat.kill().await;
                tokio::time::sleep(away).await;
                chat.start().await;
            }
            2 => {
                let count = cluster.sse.len();
                let sse = &mut cluster.sse[which % count];
                sse.kill().await;
                tokio::time::sleep(away).await;
                sse.start().await;
            }
            _ => {
                cluster.store.kill().await;
                tokio::time::sleep(away).await;
                cluster.store.restart().await;
            }
        }
        // Everyone resumes, on whichever node nginx chooses.
        listeners.cut();
    }
    load.verify().await;
}
