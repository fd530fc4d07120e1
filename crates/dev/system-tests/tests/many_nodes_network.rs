//! The network between any two of several nodes breaks, and nothing is lost.

use std::time::Duration;

use rand::RngExt;
use system_tests::{Cluster, Link, Load, Sender, Size, seeded_random};

const FAULTS: usize = 30;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cuts_between_any_two_of_many_nodes_cost_nothing_that_was_answered() {
    let mut random = seeded_random();
    let cluster = Cluster::start(Size {
        breakable: true,
        broker_nodes: 3,
        ..Size::default()
    })
    .await;
    let front = [cluster.front.address()];
    let senders = Link::to("senders to nginx", &front).await;
    let listeners = Link::to("listeners to nginx", &front).await;
    let url = |link: &Link| format!("http://{}", link.addresses()[0]);

    let sender = Sender::to(url(&senders));
    let stream = |channel: &str| format!("{}/events?c={channel}", url(&listeners));
    let load = Load::start(&sender, stream).await;
    let mut links: Vec<&Link> = cluster.links.all().collect();
    links.extend([&senders, &listeners]);
    for fault in 0..FAULTS {
        let share = Load::POSTS / FAULTS;
        let moment = fault * share + random.random_range(0..share);
        load.wait_for_posts(moment).await;
        let link = links[random.random_range(0..links.len())];
        let kind = ["cut", "refuse", "stall"][random.random_range(0..3)];
        println!("fault {fault}: {kind} {} at {moment} posts", link.name());
        match kind {
            "cut" => link.cut(),
            "refuse" => link.refuse(),
            _ => link.stall(),
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..1_500))).await;
        link.resume();
        // What comes out of a stall may be of a connection that is given up.
        if random.random() {
            link.cut();
        }
    }
    load.verify().await;
}
