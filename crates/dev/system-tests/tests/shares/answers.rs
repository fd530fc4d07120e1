//! Pages of history that are never read.

use system_tests::{HonestPair, Sender, new_channel};
use test_kit::{Http2, Unread};

use crate::behind_a_proxy;

/// Connections, and requests on each.
const CONNECTIONS: usize = 2;
const REQUESTS: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_answers_of_one_address_leave_room_for_others() {
    let chain = behind_a_proxy(&[("HARK_LIMITS__ANSWERS", "16MiB")]).await;
    let channel = new_channel();
    let sender = Sender::to(chain.chat.url());
    for _ in 0..17 {
        sender.post(&channel, &"x".repeat(60_000)).await;
    }
    let mut pair = HonestPair::start(&chain.chat.url(), &chain.sse.url()).await;
    pair.quiet().await;
    let page = format!("/channels/{channel}/messages");
    let refused = pair
        .beside(async {
            let (mut unread, mut refused) = (Vec::new(), 0);
            for _ in 0..CONNECTIONS {
                let mut client = Http2::connect(chain.chat.address()).await;
                let answers = client.ask(&page, "192.0.2.1", REQUESTS).await;
                let statuses = answers.iter().map(Unread::status);
                refused += statuses.filter(|status| *status == 429).count();
                unread.push((client, answers));
            }
            // Somebody else reads the same page beside it.
            let mut other = Http2::connect(chain.chat.address()).await;
            let answers = other.ask(&page, "192.0.2.2", 1).await;
            assert_eq!(answers[0].status(), 200);
            refused
        })
        .await;
    // Eight pages fit into 8 MiB.
    let answered = CONNECTIONS * REQUESTS - refused;
    assert!((6..=8).contains(&answered), "{answered} were answered");
}
