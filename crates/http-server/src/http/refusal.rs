//! The answer to a client that already has as many connections as it may have.

use std::sync::Arc;
use std::time::Duration;

use service_kit::lifecycle::Lifecycle;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// The most refusals being written at a time. Further connections are closed without an answer.
const AT_A_TIME: usize = 64;
/// How long a client may take to send its request and to read the refusal.
const PATIENCE: Duration = Duration::from_secs(1);
/// How much of the request is read, in bytes. Closing with unread bytes would send a reset, which could
/// overtake the answer.
const MOST_READ: usize = 64 * 1024;

const BODY: &str = r#"{"type":"/problems/too-many-connections","title":"Too many connections","status":429,"detail":"this address has reached its limit of connections; close some, or send several requests on one"}"#;

/// Tells clients of plain HTTP/1 why they get no connection. For others the connection is just closed.
#[derive(Clone)]
pub(super) struct Refusals {
    life: Lifecycle,
    at_a_time: Arc<Semaphore>,
    answer: Arc<str>,
}

impl Refusals {
    pub(super) fn new(life: &Lifecycle) -> Self {
        let length = BODY.len();
        let answer = format!(
            "HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/problem+json\r\n\
             content-length: {length}\r\nretry-after: 10\r\nconnection: close\r\n\r\n{BODY}"
        );
        Self {
            life: life.clone(),
            at_a_time: Arc::new(Semaphore::new(AT_A_TIME)),
            answer: answer.into(),
        }
    }

    /// Answers the client's first request and closes the connection.
    pub(super) fn tell(&self, mut stream: TcpStream) {
        let Ok(permit) = Arc::clone(&self.at_a_time).try_acquire_owned() else {
            return;
        };
        let (answer, soft) = (Arc::clone(&self.answer), self.life.soft());
        self.life.spawn_transient(async move {
            let told = timeout(PATIENCE, tell(&mut stream, &answer));
            // A client that has left, or sends nothing, needs no answer.
            let _told = soft.run_until_cancelled(told).await;
            drop(permit);
        });
    }
}

async fn tell(stream: &mut TcpStream, answer: &str) -> std::io::Result<()> {
    let mut scratch = [0; 4096];
    let mut read = stream.read(&mut scratch).await?;
    if read == 0 {
        return Ok(());
    }
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    while read < MOST_READ {
        match stream.read(&mut scratch).await? {
            0 => return Ok(()),
            more => read += more,
        }
    }
    Ok(())
}
