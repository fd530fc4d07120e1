//! Shows what an `EventSource` would see while something is restarted.

use std::time::Duration;

use axum::http::StatusCode;
use event_stream::Reader;
use tokio::time::{Instant, sleep, timeout};

use super::Patient;
use crate::client::{next, stream_from};

/// The pause between two attempts, as in browsers that were told nothing else.
const RETRY: Duration = Duration::from_secs(1);
/// The longest pause between attempts, so that short problems are not missed.
const LONGEST_RETRY: Duration = Duration::from_secs(2);
const CONNECT: Duration = Duration::from_secs(10);

/// Keeps a stream open for a time and reports every answer that would make a browser give up.
pub(super) async fn watch(patient: &mut Patient, time: Duration) {
    let url = patient.sse.join(&format!("events?c={}", patient.channel));
    patient.findings.note(&format!(
        "watching {} for {} s: restart what you like",
        patient.sse,
        time.as_secs()
    ));
    let until = Instant::now() + time;
    let mut reader = Reader::default();
    let (mut opened, mut ended, mut given_up) = (0_u32, 0_u32, 0_u32);
    while Instant::now() < until {
        let request = stream_from(url.clone(), reader.cursor());
        match timeout(CONNECT, patient.sse_client.send(request)).await {
            Ok(Ok(mut answer)) if answer.status() == StatusCode::OK => {
                opened += 1;
                let left = until.saturating_duration_since(Instant::now());
                let reading = async {
                    while let Some(bytes) = next(&mut answer, time).await {
                        if reader.read(&bytes).is_err() {
                            break;
                        }
                    }
                };
                if timeout(left, reading).await.is_ok() {
                    ended += 1;
                }
            }
            Ok(Ok(answer)) => {
                given_up += 1;
                patient.findings.fail(
                    &format!("a stream was answered with {}: every EventSource gives up for good", answer.status()),
                    "let the proxy answer 502, 503 and 504 of streams with 200, text/event-stream and a \
                     ping that says `retry:` (deploy/examples/nginx.conf)",
                );
            }
            // After a refused connection, browsers try again.
            Ok(Err(_)) | Err(_) => {}
        }
        reader.restart();
        sleep(reader.retry().unwrap_or(RETRY).min(LONGEST_RETRY)).await;
    }
    if reader.had_hollow_block() {
        patient.findings.warn(
            "a stream had a block without data: several clients turn it into an empty event",
            "send `retry:` in a ping, with `event: ping` and `data: {}` (deploy/examples/nginx.conf)",
        );
    }
    if opened == 0 {
        patient.findings.fail(
            "no stream could be opened",
            "run hark doctor without --watch",
        );
    } else if given_up == 0 {
        patient.findings.ok(&format!(
            "{ended} streams ended, and each could be reopened"
        ));
    }
}
