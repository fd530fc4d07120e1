//! Handlers for posting a message.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use chat_model::{ChannelId, Epoch, EventView, NewMessage, Sender, Seq};
use chat_store::IdempotencyKey;
use http_server::client_address::Client;
use http_server::http::until_written;
use http_server::identify::RequestId;
use http_server::problem::Problem;
use rights::Caller;
use serde::Serialize;
use tracing::field::display;
use tracing::{Level, debug, enabled};
use uuid::Uuid;

use super::body::{self, Kind};
use super::problems;
use super::request::{AppState, Channel, OlderPath};
use crate::budget::Held;
use crate::ingest::{Post, PostTurn, Posted};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The longest `Idempotency-Key`, in bytes.
const LONGEST_KEY: usize = 128;
/// A body of at least this many bytes counts towards its client's share until the answer is written.
const LARGE: usize = 4 * 1024;

/// `POST /channels/{channel}/messages`
pub(crate) async fn message(
    State(state): State<Arc<AppState>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    channel: Result<Channel, Problem>,
    request: Request,
) -> Result<Response, Problem> {
    let (client, turn) = state.post_turn(peer, request.headers())?;
    let Channel(channel) = channel?;
    let (head, body) = request.into_parts();
    let kind = body::kind(&head.headers)?;
    let key = idempotency_key(&head.headers)?;
    // Held until the answer: the message waits for the store meanwhile.
    let mut held = state.bodies.hold(client);
    let bytes = body::read(&head.headers, body, state.limits.message, Some(&mut held)).await?;
    turn.spend(bytes.len());
    let message = match kind {
        Kind::Json => NewMessage::from_json(&bytes),
        Kind::Text => NewMessage::from_text(&bytes),
        Kind::Form => NewMessage::from_form(&bytes),
    }
    .map_err(|error| problems::message(&error))?;
    let caller = Caller::Guest {
        claimed: message.from.clone(),
    };
    let post = Post {
        channel,
        message,
        key,
    };
    let posted = turn.post(&caller, post).await;
    let posted = posted.map_err(|error| problems::failure(&error))?;
    log(&head.extensions, channel, &posted);
    Ok(hold_large(answer(channel, posted), bytes.len(), held))
}

/// `POST /chat/publish/{channel}/{user}`, from the older system. The body is the text, whatever its content
/// type, and its clients expect 200.
pub(crate) async fn older(
    State(state): State<Arc<AppState>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    path: Result<OlderPath, Problem>,
    request: Request,
) -> Result<Response, Problem> {
    let (client, turn) = state.post_turn(peer, request.headers())?;
    let OlderPath { channel, user } = path?;
    let (head, body) = request.into_parts();
    // Held until the answer: the message waits for the store meanwhile.
    let mut held = state.bodies.hold(client);
    let bytes = body::read(&head.headers, body, state.limits.message, Some(&mut held)).await?;
    turn.spend(bytes.len());
    let message = NewMessage::from_text(&bytes).map_err(|error| problems::message(&error))?;
    let claimed = Sender {
        id: Some(user.to_string()),
        name: None,
    };
    let caller = Caller::Guest {
        claimed: Some(claimed),
    };
    let post = Post {
        channel,
        message,
        key: None,
    };
    let posted = turn.post(&caller, post).await;
    let posted = posted.map_err(|error| problems::failure(&error))?;
    log(&head.extensions, channel, &posted);
    let mut response = answer(channel, posted);
    if response.status() == StatusCode::CREATED {
        *response.status_mut() = StatusCode::OK;
    }
    Ok(hold_large(response, bytes.len(), held))
}

impl AppState {
    /// The client that posts, and its permission to post once now.
    fn post_turn(
        &self,
        peer: SocketAddr,
        headers: &HeaderMap,
    ) -> Result<(Client, PostTurn<'_>), Problem> {
        let client = self.client(peer, headers);
        let turn = self.ingest.turn(client);
        Ok((client, turn.map_err(problems::too_many_posts)?))
    }
}

/// Logs the request's id with the message's number and id, which broadcast-sse logs too.
fn log(request: &Extensions, channel: ChannelId, posted: &Posted) {
    if !enabled!(Level::DEBUG) {
        return;
    }
    let request_id = request.get::<RequestId>().map(RequestId::as_str);
    match posted {
        Posted::New { event, seq, .. } => {
            // Only for the log; if the line cannot be parsed, it is logged without an id.
            let id = EventView::parse(event).ok().map(|event| display(event.id));
            debug!(request_id, %channel, seq, id, "a message was stored");
        }
        Posted::Repeated { seq, id, .. } => {
            debug!(request_id, %channel, seq, %id, "a message was posted again");
        }
    }
}

/// What is still known of a message that was posted again after its event had expired.
#[derive(Serialize)]
struct Expired {
    channel: ChannelId,
    epoch: Epoch,
    seq: Seq,
    id: Uuid,
}

fn answer(channel: ChannelId, posted: Posted) -> Response {
    let (status, seq, event) = match posted {
        Posted::New {
            event,
            seq,
            broker_up: true,
        } => (StatusCode::CREATED, seq, event),
        Posted::New { event, seq, .. } => (StatusCode::ACCEPTED, seq, event),
        Posted::Repeated {
            event: Some(event),
            seq,
            ..
        } => (StatusCode::OK, seq, event),
        Posted::Repeated {
            event: None,
            epoch,
            seq,
            id,
        } => {
            let expired = Expired {
                channel,
                epoch,
                seq,
                id,
            };
            // Ids and a number always serialise.
            let bytes = serde_json::to_vec(&expired).unwrap_or_default();
            (StatusCode::OK, seq, Bytes::from(bytes))
        }
    };
    let location = location(channel, seq);
    let mut response = Response::new(Body::from(event));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(LOCATION, location);
    response
}

/// The answer to a body of this many bytes, which is about as large. It keeps the body's share until it has
/// been written. Small answers do not: a client can have only few of them, because posts are rate-limited.
fn hold_large(response: Response, bytes: usize, held: Held) -> Response {
    if bytes < LARGE {
        return response;
    }
    until_written(response, held)
}

/// Where the message can be read: a page that begins with it.
fn location(channel: ChannelId, seq: Seq) -> HeaderValue {
    let mut uuid = Uuid::encode_buffer();
    let mut location = String::with_capacity(96);
    location.push_str("/channels/");
    location.push_str(channel.uuid().as_hyphenated().encode_lower(&mut uuid));
    location.push_str("/messages?after=");
    location.push_str(&seq.saturating_sub(1).to_string());
    location.push_str("&limit=1");
    HeaderValue::from_maybe_shared(Bytes::from(location)).expect("ASCII is a header value")
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let bytes = value.as_bytes();
    let good = (1..=LONGEST_KEY).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
    if !good || values.next().is_some() {
        return Err(problems::bad_request("Idempotency-Key").detail(format!(
            "send one Idempotency-Key of 1 to {LONGEST_KEY} visible ASCII characters"
        )));
    }
    Ok(Some(IdempotencyKey::new(bytes)))
}
