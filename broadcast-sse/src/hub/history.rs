//! Requests to chat-service for heads and pages of history, over its public API.

mod base;
mod error;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use bytes::Bytes;
use chat_model::{
    ChannelId, Damaged, Head, Heads, HeadsQuery, MAX_PAGE_EVENTS, Page as WirePage, Position, Seq,
};
use http_body_util::{BodyExt, Full, Limited};
use http_server::http_client::{BaseUrl, HttpClient, NoAnswer};
use rustls::ClientConfig;
use serde::Deserialize;
use service_kit::log_limit::LogLimit;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::entry::{Encode, Entry};
use super::reader::Page;
use base::Base;
pub(crate) use error::HistoryError;

/// How long connecting to a chat-service may take, and how long a whole answer may.
const CONNECT_TIME: Duration = Duration::from_secs(2);
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// How often a request is postponed because chat-service was asked too often, and for how long at most.
const PUT_OFF: usize = 3;
const LONGEST_REST: Duration = Duration::from_secs(10);
/// How much of a refusal is read.
const MOST_PROBLEM: usize = 16 * 1024;

static TOO_OFTEN: LogLimit = LogLimit::per_minute(1);

/// A client for the chat-services. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct History {
    client: HttpClient,
    /// They share a store, so each can answer everything.
    bases: Arc<[Base]>,
    /// The one that answered last.
    current: Arc<AtomicUsize>,
    /// How their events are encoded for listeners.
    encode: Encode,
}

/// The parts of a problem (RFC 9457) that are meant for people.
#[derive(Deserialize)]
struct Refusal {
    detail: String,
}

impl History {
    /// Talks to one of the chat-services at `bases`, which must not be empty, and to another one if that
    /// does not answer. `tls` says which authorities to trust for `https` and which certificate to show;
    /// `encode` encodes the events.
    pub(crate) fn new(bases: Vec<BaseUrl>, tls: &ClientConfig, encode: Encode) -> Self {
        // Nodes that start together must not all ask the same one.
        let first = rand::random_range(0..bases.len());
        Self {
            client: HttpClient::new(tls, CONNECT_TIME),
            bases: bases.into_iter().map(Base::new).collect(),
            current: Arc::new(AtomicUsize::new(first)),
            encode,
        }
    }

    pub(super) fn encode(&self) -> Encode {
        self.encode
    }

    /// The heads of these channels, in their order, read from the store.
    ///
    /// # Errors
    /// If chat-service does not answer as the protocol says.
    pub(crate) async fn heads(&self, channels: &[ChannelId]) -> Result<Heads, HistoryError> {
        let query = HeadsQuery {
            channels: channels.to_vec(),
        };
        let query = serde_json::to_vec(&query).map_err(|error| unreadable(&error))?;
        let query = Bytes::from(query);
        let body = self.ask("heads", Some(&query)).await?;
        let heads: Heads = serde_json::from_slice(&body).map_err(|error| unreadable(&error))?;
        let answered = heads.heads.iter().map(|head| head.channel);
        let damaged: HashSet<_> = heads.damaged.iter().collect();
        let whole = channels.iter().filter(|c| !damaged.contains(c)).copied();
        if !answered.eq(whole) {
            return Err(HistoryError::Unreadable(
                "other channels than asked for".to_owned(),
            ));
        }
        Ok(heads)
    }

    /// At most `limit` events after `after`.
    ///
    /// # Errors
    /// If chat-service does not answer as the protocol says.
    pub(crate) async fn page(
        &self,
        channel: ChannelId,
        after: Seq,
        limit: usize,
    ) -> Result<Page, HistoryError> {
        let path = format!("channels/{channel}/messages?after={after}&limit={limit}");
        let body = self.ask(&path, None).await?;
        let page: WirePage<'_> =
            serde_json::from_slice(&body).map_err(|error| unreadable(&error))?;
        if page.channel != channel {
            return Err(HistoryError::Unreadable(
                "another channel than asked for".to_owned(),
            ));
        }
        let mut entries: Vec<Arc<Entry>> = Vec::with_capacity(page.messages.len());
        for message in &page.messages {
            let entry = Entry::new(channel, message.get().as_bytes(), self.encode)
                .map_err(|error| HistoryError::Unreadable(error.to_string()))?;
            entries.push(Arc::new(entry));
        }
        let head = page.to_head();
        add_damaged(&mut entries, &page.damaged, &head)?;
        let mut last = None;
        for entry in &entries {
            // The oldest may have expired; between two numbers of a page nothing can be missing.
            let good = match last {
                Some(last) => entry.seq() == last + 1,
                None => entry.seq() > after,
            };
            if !good {
                let why = format!("event {} is not the next one", entry.seq());
                return Err(HistoryError::Unreadable(why));
            }
            last = Some(entry.seq());
        }
        Ok(Page {
            after,
            head,
            entries,
        })
    }

    /// The answer of the first chat-service that gives one, to a POST of JSON or to a GET. While all of them
    /// refuse because of their rate limits, it waits.
    async fn ask(&self, path: &str, json: Option<&Bytes>) -> Result<Bytes, HistoryError> {
        for _ in 0..PUT_OFF {
            match self.ask_all(path, json).await {
                Err(HistoryError::TooOften(rest)) => {
                    if let Some(left_out) = TOO_OFTEN.line() {
                        warn!(
                            left_out,
                            "chat-service limits how often this node reads, and listeners wait: name it in limits.nodes there"
                        );
                    }
                    sleep(rest).await;
                }
                answered => return answered,
            }
        }
        self.ask_all(path, json).await
    }

    async fn ask_all(&self, path: &str, json: Option<&Bytes>) -> Result<Bytes, HistoryError> {
        let first = self.current.load(Relaxed);
        let mut rest: Option<Duration> = None;
        let mut failure = HistoryError::Late;
        for turn in 0..self.bases.len() {
            let place = (first + turn) % self.bases.len();
            let base = &self.bases[place];
            let answered = match base.rest() {
                Some(left) => Err(HistoryError::TooOften(left)),
                None => timeout(ANSWER_TIME, self.ask_one(base.url.join(path), json))
                    .await
                    .unwrap_or(Err(HistoryError::Late)),
            };
            match answered {
                Err(HistoryError::TooOften(left)) => {
                    base.rest_for(left);
                    rest = Some(rest.map_or(left, |rest| rest.min(left)));
                }
                Err(error) if error.may_be_one_server() => {
                    debug!(%error, base = %base.url, "asking another chat-service");
                    failure = error;
                }
                answered => {
                    self.current.store(place, Relaxed);
                    return answered;
                }
            }
        }
        Err(rest.map_or(failure, HistoryError::TooOften))
    }

    async fn ask_one(&self, url: Uri, json: Option<&Bytes>) -> Result<Bytes, HistoryError> {
        let mut request = Request::new(Full::from(json.cloned().unwrap_or_default()));
        *request.uri_mut() = url;
        if json.is_some() {
            *request.method_mut() = Method::POST;
            let json = HeaderValue::from_static("application/json");
            request.headers_mut().insert(CONTENT_TYPE, json);
        }
        let response = self.client.send(request).await?;
        let (head, body) = response.into_parts();
        if head.status == StatusCode::TOO_MANY_REQUESTS {
            return Err(HistoryError::TooOften(retry_after(&head.headers)));
        }
        if !head.status.is_success() {
            let why = why_refused(Body::new(body)).await;
            let status = head.status;
            return Err(HistoryError::Refused { status, why });
        }
        let body = body.collect().await;
        let body = body.map_err(|error| HistoryError::BrokenOff(NoAnswer::of(&error)))?;
        Ok(body.to_bytes())
    }
}

/// Parses `Retry-After`, which chat-service gives in seconds.
fn retry_after(headers: &HeaderMap) -> Duration {
    let seconds = headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok());
    let seconds = seconds.and_then(|text| text.parse().ok()).unwrap_or(1);
    Duration::from_secs(seconds).min(LONGEST_REST)
}

/// What a refusal says should be done.
async fn why_refused(body: Body) -> String {
    let body = Limited::new(body, MOST_PROBLEM).collect().await;
    let body = body
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    let refusal = serde_json::from_slice::<Refusal>(&body);
    refusal.map_or_else(
        |_no_problem| String::new(),
        |refusal| format!(": {}", refusal.detail),
    )
}

/// Inserts the numbers that the store cannot read among the events.
fn add_damaged(
    entries: &mut Vec<Arc<Entry>>,
    damaged: &[Damaged],
    head: &Head,
) -> Result<(), HistoryError> {
    for &Damaged { from, to } in damaged {
        if from > to || to - from >= MAX_PAGE_EVENTS as Seq || to > head.head {
            let why = format!("{from} to {to} cannot be damaged");
            return Err(HistoryError::Unreadable(why));
        }
        entries.extend((from..=to).map(|seq| {
            let mut epochs = head.epochs.iter().rev();
            let epoch = epochs.find(|start| start.from <= seq);
            let epoch = epoch.map_or(head.epoch, |start| start.epoch);
            Arc::new(Entry::damaged(Position::new(epoch, seq)))
        }));
    }
    if !damaged.is_empty() {
        entries.sort_by_key(|entry| entry.seq());
    }
    Ok(())
}

fn unreadable(error: &serde_json::Error) -> HistoryError {
    HistoryError::Unreadable(error.to_string())
}

#[cfg(test)]
mod tests;
