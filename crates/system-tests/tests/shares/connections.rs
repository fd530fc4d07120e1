//! Connections, and what their clients do not say.

use std::time::Duration;

use system_tests::{Chain, HonestPair};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::sleep;

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
