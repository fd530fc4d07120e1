//! Bodies that are never finished, and reading without end.

use std::net::SocketAddr;
use std::time::Duration;

use system_tests::{HonestPair, new_channel};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::behind_a_proxy;

/// A body of which the last byte never comes; the answer to it, if there is one within a moment.
async fn unfinished(chat: SocketAddr) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(chat).await.unwrap();
    let head = format!(
        "POST /channels/{}/messages HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.1\r\n\
         Content-Length: 60000\r\n\r\n",
        new_channel()
    );
    let request = head + &"x".repeat(59_999);
    // What is refused on the way may be a reset.
    let _refused = stream.write_all(request.as_bytes()).await;
    let mut status = [0; 12];
    let read = timeout(Duration::from_millis(50), stream.read_exact(&mut status)).await;
    let status = read
        .is_ok()
        .then(|| String::from_utf8_lossy(&status).into_owned());
    (stream, status.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_bodies_of_one_address_leave_room_for_others() {
    let limit = [("HARK_LIMITS__BODIES", "1MiB")];
    let chain = behind_a_proxy(&limit).await;
    let mut pair = HonestPair::start(&chain.chat.url(), &chain.sse.url()).await;
    pair.quiet().await;
    let refused = pair
        .beside(async {
            let (mut open, mut refused) = (Vec::new(), 0);
            for _ in 0..40 {
                let (stream, status) = unfinished(chain.chat.address()).await;
                refused += usize::from(status == "HTTP/1.1 429");
                open.push(stream);
            }
            refused
        })
        .await;
    // Eight fit into half a MiB.
    assert!(refused >= 30, "{refused} of 40 were refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_without_end_is_not_felt() {
    let limits = [
        ("HARK_LIMITS__READS_PER_SECOND", "20"),
        ("HARK_LIMITS__READS_BURST", "100"),
    ];
    let chain = behind_a_proxy(&limits).await;
    let mut pair = HonestPair::start(&chain.chat.url(), &chain.sse.url()).await;
    pair.quiet().await;
    let statuses = pair
        .beside(async {
            let mut reading = JoinSet::new();
            for _ in 0..4 {
                let url = format!("{}/channels/{}/messages", chain.chat.url(), new_channel());
                reading.spawn(async move {
                    let client = reqwest::Client::new();
                    let mut statuses = Vec::new();
                    for _ in 0..250 {
                        let get = client.get(&url).header("x-forwarded-for", "192.0.2.1");
                        statuses.push(get.send().await.unwrap().status().as_u16());
                    }
                    statuses
                });
            }
            reading.join_all().await.concat()
        })
        .await;
    let answered = statuses.iter().filter(|status| **status == 200).count();
    let refused = statuses.iter().filter(|status| **status == 429).count();
    assert!(answered >= 100 && refused >= 400, "{answered}, {refused}");
}
