//! A node that runs out of file descriptors serves those whom it has.

use std::time::Duration;

use system_tests::{Chain, new_channel};
use test_kit::{Listener, Program, Recording, open_without_reading};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_beyond_the_limit_wait_and_cost_the_others_nothing() {
    let shell = Program::of_system("sh", "dash").args(["-c", r#"ulimit -n 100 && exec "$0""#]);
    let chain = Chain::start_with(|sse| sse.started_by(|program| program.started_by(shell))).await;
    let (sender, channel) = (chain.sender(), new_channel());
    let recording = Recording::ready(chain.stream(&[&channel])).await;
    let path = format!("/events?c={channel}");
    let mut crowd = Vec::new();
    for _ in 0..200 {
        crowd.push(open_without_reading(chain.sse.address(), &path).await);
    }
    for number in 1..=20 {
        sender.post(&channel, "in the crowd").await;
        recording
            .wait_for(Duration::from_secs(5), "message", number)
            .await;
    }
    crowd.clear();
    let mut next = Listener::new(chain.stream(&[&channel]));
    next.expect("ready", SOON).await;
    sender.post(&channel, "there is room again").await;
    next.expect("message", SOON).await;
    assert_eq!(recording.connects(), 1);
}
