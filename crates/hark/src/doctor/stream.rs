//! Checks whether a stream arrives as it is sent: at once, unchanged, and resumed from where it was.

use std::time::Duration;

use axum::http::{Response, StatusCode, header};
use event_stream::{Event, Reader};
use http_server::http_client::BaseUrl;
use hyper::body::Incoming;
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::Patient;
use crate::client::{ask, json_to, next, reason, stream_from, whole};

/// How long the first bytes of a stream may take after its head.
const FIRST_BYTES: Duration = Duration::from_secs(3);
/// How long `ready` may take. It waits for the broker and for history.
const READY: Duration = Duration::from_secs(12);
/// How long a message may take. With polling, without a broker, it takes two to three seconds.
const MESSAGE: Duration = Duration::from_secs(10);
const LIVE: Duration = Duration::from_millis(1_500);

const BUFFERED: &str = "a proxy in between collects the answer before it passes it on: turn that off for the \
                        stream (nginx: `proxy_buffering off`, no gzip; the header X-Accel-Buffering must reach it)";

/// A stream that is being read.
struct Open {
    answer: Response<Incoming>,
    reader: Reader,
    waiting: std::collections::VecDeque<Event>,
}

impl Open {
    fn new(answer: Response<Incoming>) -> Self {
        Self {
            answer,
            reader: Reader::default(),
            waiting: std::collections::VecDeque::new(),
        }
    }

    /// The next event with one of these names; `None` if none arrives in time.
    async fn event(&mut self, names: &[&str], patience: Duration) -> Option<Event> {
        let found = timeout(patience, async {
            loop {
                while let Some(event) = self.waiting.pop_front() {
                    if names.contains(&event.name.as_str()) {
                        return Some(event);
                    }
                }
                let bytes = next(&mut self.answer, patience).await?;
                // An event that is too large is not the one that is waited for.
                self.waiting.extend(self.reader.read(&bytes).ok()?);
            }
        });
        found.await.ok().flatten()
    }
}

pub(super) async fn check(patient: &mut Patient) {
    let Some(mut open) = open(patient).await else {
        return;
    };
    if !posts_arrive(patient, &mut open).await {
        return;
    }
    resumes(patient).await;
    takes_long_cursors(patient).await;
}

/// A stream that has sent `ready`.
async fn open(patient: &mut Patient) -> Option<Open> {
    let url = patient.sse.join(&format!("events?c={}", patient.channel));
    let answered = timeout(READY, patient.sse_client.send(stream_from(url, None))).await;
    let answer = match answered {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            patient.findings.fail(
                &format!("{} does not answer: {error}", patient.sse),
                "start broadcast-sse; if there is a proxy in front of it, look at the proxy's log",
            );
            return None;
        }
        Err(_late) => {
            patient.findings.fail(
                &format!("{} does not send the head of a stream", patient.sse),
                BUFFERED,
            );
            return None;
        }
    };
    if answer.status() != StatusCode::OK || !is(&answer, "text/event-stream") {
        let said = what_it_says(&patient.sse, answer).await;
        patient.findings.fail(
            &said,
            "is it the URL of broadcast-sse, with its path? An EventSource gives up for good on any status but 200",
        );
        return None;
    }
    if answer.headers().contains_key(header::CONTENT_ENCODING) {
        patient.findings.warn(
            "the stream is compressed",
            "a proxy holds bytes back to compress them: exempt streams",
        );
    }
    let mut open = Open::new(answer);
    let Some(first) = next(&mut open.answer, FIRST_BYTES).await else {
        patient.findings.fail(
            "the head of a stream arrives, but nothing after it",
            BUFFERED,
        );
        return None;
    };
    // As above: what is waited for does not come then.
    open.waiting = open.reader.read(&first).unwrap_or_default().into();
    if open.event(&["ready"], READY).await.is_none() {
        patient.findings.fail(
            "a stream opens but does not become ready",
            "broadcast-sse cannot ask chat-service: look at its /readyz and at history.url",
        );
        return None;
    }
    patient.findings.ok("a stream opens and is ready");
    Some(open)
}

fn is(answer: &Response<Incoming>, content_type: &str) -> bool {
    let kind = answer.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(content_type.as_bytes()))
}

/// Describes an answer that is not a stream, with its reason if it gives one.
async fn what_it_says(sse: &BaseUrl, answer: Response<Incoming>) -> String {
    let kind = answer.headers().get(header::CONTENT_TYPE);
    let kind = kind.map_or("no content type".into(), |kind| {
        String::from_utf8_lossy(kind.as_bytes()).into_owned()
    });
    let said = format!(
        "{sse} answers {} with {kind}, not a stream",
        answer.status()
    );
    if !is(&answer, "application/problem+json") {
        return said;
    }
    match timeout(FIRST_BYTES, whole(answer)).await {
        Ok(Ok(answer)) => format!("{said}: {}", reason(&answer)),
        // The status and the type are enough.
        _ => said,
    }
}

/// Posts three messages. Each must arrive before the next is posted.
async fn posts_arrive(patient: &mut Patient, open: &mut Open) -> bool {
    let url = patient
        .chat
        .join(&format!("channels/{}/messages", patient.channel));
    let mut slowest = Duration::ZERO;
    let mut without_broker = false;
    for number in 1..=3 {
        let body = json!({ "type": "doctor", "text": format!("{number} of 3") });
        let posted = Instant::now();
        let answer = match ask(&patient.chat_client, json_to(url.clone(), &body)).await {
            Ok(answer) => answer,
            Err(error) => {
                patient.findings.fail(
                    &format!("a post gets no answer: {error}"),
                    "look at the log of the proxy",
                );
                return false;
            }
        };
        if !answer.status().is_success() {
            patient.findings.fail(
                &format!("a post gets {}: {}", answer.status(), reason(&answer)),
                "look at /readyz and the log of chat-service",
            );
            return false;
        }
        without_broker |= answer.status() == StatusCode::ACCEPTED;
        if open.event(&["doctor"], MESSAGE).await.is_none() {
            patient.findings.fail(
                "a message is stored but does not arrive on the stream",
                "do chat-service and broadcast-sse belong together (broker, mqtt.topic_prefix, history.url)? If \
                 the first bytes of a stream come only later: a proxy collects them",
            );
            return false;
        }
        slowest = slowest.max(posted.elapsed());
    }
    if without_broker {
        patient.findings.warn(
            "chat-service has no connection to the broker (202)",
            "messages arrive up to 2 s late: look at its /readyz and at mqtt.url",
        );
    } else if slowest > LIVE {
        patient.findings.warn(
            &format!(
                "a message takes {} ms from post to stream",
                slowest.as_millis()
            ),
            "it arrives by polling, not through the broker: look at /readyz of broadcast-sse",
        );
    } else {
        let took = format!(
            "messages are stored and arrive live, within {} ms",
            slowest.as_millis()
        );
        patient.findings.ok(&took);
    }
    true
}

/// Checks that a stream with `Last-Event-ID` begins after that event.
async fn resumes(patient: &mut Patient) {
    let url = patient
        .sse
        .join(&format!("events?c={}&last=3", patient.channel));
    let answer = match patient.sse_client.send(stream_from(url, None)).await {
        Ok(answer) => answer,
        Err(error) => return not_again(patient, &error.to_string()),
    };
    let mut first = Open::new(answer);
    if first.event(&["doctor"], READY).await.is_none() {
        patient.findings.fail(
            "a stream does not begin with the newest messages (last=3)",
            "does the proxy pass on the query of the URL?",
        );
        return;
    }
    let cursor = match first_cursor(patient).await {
        Ok(cursor) => cursor,
        Err(why) => {
            patient.findings.fail(
                &format!("history cannot be read: {why}"),
                "look at /readyz and the log of chat-service, and of the proxy in front of it",
            );
            return;
        }
    };
    let url = patient.sse.join(&format!("events?c={}", patient.channel));
    let again = stream_from(url, Some(&cursor));
    let answer = match patient.sse_client.send(again).await {
        Ok(answer) => answer,
        Err(error) => return not_again(patient, &error.to_string()),
    };
    let mut resumed = Open::new(answer);
    let next = resumed.event(&["doctor", "ready"], READY).await;
    match next {
        Some(event) if event.name == "doctor" && event.data.contains("2 of 3") => {
            patient
                .findings
                .ok("a stream resumes after the last message that was seen");
        }
        _ => patient.findings.fail(
            "a reopened stream does not resume where it was",
            "the proxy must pass on the header Last-Event-ID",
        ),
    }
}

fn not_again(patient: &mut Patient, why: &str) {
    patient.findings.fail(
        &format!("a stream was opened once but cannot be opened again: {why}"),
        "look at the log of broadcast-sse, and of the proxy in front of it",
    );
}

/// The cursor of the first message, built from the message itself.
async fn first_cursor(patient: &Patient) -> Result<String, String> {
    let url = patient.chat.join(&format!(
        "channels/{}/messages?after=0&limit=1",
        patient.channel
    ));
    let answer = ask(&patient.chat_client, crate::client::get(url)).await;
    let answer = answer.map_err(|error| error.to_string())?;
    if !answer.status().is_success() {
        return Err(format!(
            "the answer is {}: {}",
            answer.status(),
            reason(&answer)
        ));
    }
    let page: serde_json::Value =
        serde_json::from_slice(answer.body()).map_err(|error| error.to_string())?;
    let first = &page["messages"][0];
    let epoch = first["epoch"].as_str().and_then(|epoch| epoch.parse().ok());
    let position = epoch.zip(first["seq"].as_u64());
    let (epoch, seq) = position.ok_or("it does not contain what was posted")?;
    Ok(chat_model::Cursor::encode([(
        patient.channel,
        chat_model::Position::new(epoch, seq),
    )]))
}

/// A cursor for a hundred channels takes 2 KiB, and browsers also send cookies.
async fn takes_long_cursors(patient: &mut Patient) {
    let url = patient.sse.join(&format!("events?c={}", patient.channel));
    let long = "x".repeat(16 * 1024);
    let answered = patient.sse_client.send(stream_from(url, Some(&long))).await;
    match answered {
        Ok(answer) if answer.status() == StatusCode::OK => {
            patient.findings.ok("long cursors pass (16 KiB)");
        }
        Ok(answer) => patient.findings.fail(
            &format!("a cursor of 16 KiB gets {}", answer.status()),
            "browsers then give up for good: let request heads of 32 KiB pass (nginx: \
             `large_client_header_buffers 4 32k`)",
        ),
        Err(error) => patient.findings.fail(
            &format!("a cursor of 16 KiB ends the connection: {error}"),
            "let request heads of 32 KiB pass (nginx: `large_client_header_buffers 4 32k`)",
        ),
    }
}
