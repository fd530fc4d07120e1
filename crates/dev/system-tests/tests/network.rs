//! The network between any two processes breaks, and nothing is lost.

use std::time::Duration;

use rand::RngExt;
use system_tests::{Load, Node, Sender, seeded_random};
use test_kit::FaultProxy;

const FAULTS: usize = 30;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cuts_between_any_two_cost_nothing_that_was_answered() {
    let mut random = seeded_random();
    let folder = tempfile::tempdir().unwrap();
    let broker = Node::broker().started().await;
    let [chat_to_broker, sse_to_broker] = [
        FaultProxy::start(broker.address()).await,
        FaultProxy::start(broker.address()).await,
    ];
    let mqtt = |proxy: &FaultProxy| format!("mqtt://{}", proxy.address());
    let http = |proxy: &FaultProxy| format!("http://{}", proxy.address());
    let chat = Node::chat_service(&mqtt(&chat_to_broker), folder.path())
        .started()
        .await;
    let senders_to_chat = FaultProxy::start(chat.address()).await;
    let sse_to_chat = FaultProxy::start(chat.address()).await;
    let sse = Node::broadcast_sse(&mqtt(&sse_to_broker), &http(&sse_to_chat))
        .started()
        .await;
    let listeners_to_sse = FaultProxy::start(sse.address()).await;

    let sender = Sender::to(http(&senders_to_chat));
    let stream = |channel: &str| format!("{}/events?c={channel}", http(&listeners_to_sse));
    let load = Load::start(&sender, stream).await;
    let links = [
        ("senders to chat-service", &senders_to_chat),
        ("chat-service to broker", &chat_to_broker),
        ("broadcast-sse to broker", &sse_to_broker),
        ("broadcast-sse to chat-service", &sse_to_chat),
        ("listeners to broadcast-sse", &listeners_to_sse),
    ];
    for fault in 0..FAULTS {
        let share = Load::POSTS / FAULTS;
        let moment = fault * share + random.random_range(0..share);
        load.wait_for_posts(moment).await;
        let (name, link) = links[random.random_range(0..links.len())];
        let kind = ["cut", "refuse", "stall"][random.random_range(0..3)];
        println!("fault {fault}: {kind} {name} at {moment} posts");
        match kind {
            "cut" => link.cut(),
            "refuse" => link.refuse(),
            _ => link.stall(),
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..600))).await;
        link.resume();
        // What comes out of a stall may be of a connection that is given up.
        if random.random() {
            link.cut();
        }
    }
    load.verify().await;
}
