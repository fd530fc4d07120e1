//! Connections, and what their clients do not say.

use std::time::Duration;

use system_tests::{Chain, HonestPair, Node, Sender, new_channel};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// On each of the two ports.
const SILENT: usize = 400;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_that_never_end_are_not_felt() {
    let chain = Chain::start().await;
    let mut pair = HonestPair::start(&chain.chat.url(), &chain.sse.url()).await;
    pair.quiet().await;
    pair.beside(async {
        let mut open = Vec::new();
        for address in [chain.chat.address(), chain.sse.address()] {
            for _ in 0..SILENT {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let head = b"GET /events HTTP/1.1\r\nHost: localhost\r\nX-Slow: ";
                stream.write_all(head).await.unwrap();
                open.push(stream);
            }
        }
        // A byte of the head now and then, which buys no time.
        for _ in 0..5 {
            for stream in &mut open {
                stream.write_all(b"x").await.unwrap();
            }
            sleep(Duration::from_millis(200)).await;
        }
    })
    .await;
}

/// All that chat-service has in the next test.
const PLACES: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_of_one_client_leave_room_for_others() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Node::broker().started().await;
    let chat = Node::chat_service(&broker.mqtt_url(), &folder.path().join("store"))
        .env("HARK_HTTP__MAX_CONNECTIONS", PLACES.to_string())
        .started()
        .await;
    let sse = Node::broadcast_sse(&broker.mqtt_url(), &chat.url())
        .started()
        .await;
    let mut pair = HonestPair::start(&chat.url(), &sse.url()).await;
    pair.quiet().await;
    pair.beside(async {
        let mut idle = Vec::new();
        // Five times as many as there are places, and those that were ended again and again.
        for _ in 0..10 {
            for _ in 0..PLACES / 2 {
                idle.push(TcpStream::connect(chat.address()).await.unwrap());
            }
            sleep(Duration::from_millis(200)).await;
            // Somebody who comes now is answered at once.
            let (fresh, channel) = (Sender::to(chat.url()), new_channel());
            let answer = timeout(Duration::from_secs(5), fresh.post(&channel, "hello"));
            answer.await.expect("somebody new gets a place");
        }
    })
    .await;
}
