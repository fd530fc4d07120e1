//! `POST /heads`: what broadcast-sse compares its memory with.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use chat_model::{ChannelId, Head, Heads, MAX_HEADS, explain_json};
use http_server::problem::Problem;
use serde::Deserialize;
use serde_json::error::Category;

use super::body::{self, Kind};
use super::problems;
use super::request::{AppState, Turn};
use crate::config::LARGEST_QUESTION;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Query<'a> {
    #[serde(borrow)]
    channels: Vec<Cow<'a, str>>,
}

/// `POST /heads`
pub(crate) async fn heads(
    State(state): State<Arc<AppState>>,
    turn: Turn,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    if body::kind(&head.headers)? != Kind::Json {
        return Err(problems::unsupported_type("send application/json"));
    }
    // A client that reads for many others uses no share.
    let mut held = turn.reader.map(|reader| state.bodies.hold(reader));
    let bytes = body::read(&head.headers, body, LARGEST_QUESTION, held.as_mut()).await?;
    let channels = parse(&bytes)?;
    // In this order: what is published by the time the heads are read is in them.
    let behind = state.outbox.is_behind().await;
    let behind = behind.map_err(|error| problems::store(&error))?;
    let heads = turn.read.heads(&turn.caller, &channels).await;
    let heads = heads.map_err(|error| problems::failure(&error))?;
    let damaged = left_out(&channels, &heads);
    let answer = Heads {
        behind,
        heartbeats: state.outbox.heartbeats(),
        heads,
        damaged,
    };
    let body = serde_json::to_vec(&answer);
    let body = body.map_err(|error| Problem::internal().caused_by(error))?;
    let headers = [
        (CONTENT_TYPE, "application/json"),
        (CACHE_CONTROL, "no-store"),
    ];
    turn.hold(&state, body.len(), (headers, body).into_response())
}

/// The channels that the store has given no head of.
fn left_out(channels: &[ChannelId], heads: &[Head]) -> Vec<ChannelId> {
    let mut heads = heads.iter().peekable();
    let channels = channels.iter().copied();
    channels
        .filter(|channel| heads.next_if(|head| head.channel == *channel).is_none())
        .collect()
}

fn parse(bytes: &[u8]) -> Result<Vec<ChannelId>, Problem> {
    let body = std::str::from_utf8(bytes)
        .map_err(|_| problems::unreadable_body("the body is not UTF-8"))?;
    let query: Query<'_> = serde_json::from_str(body).map_err(|error| {
        let why = explain_json(body, &error);
        match error.classify() {
            Category::Data => problems::invalid_field("channels", &why),
            _ => problems::unreadable_body(format!("the body is not JSON: {why}")),
        }
    })?;
    if query.channels.len() > MAX_HEADS {
        return Err(problems::invalid_field(
            "channels",
            &format!("at most {MAX_HEADS}, not {}", query.channels.len()),
        ));
    }
    query
        .channels
        .iter()
        .map(|text| {
            text.parse()
                .map_err(|error| problems::not_a_channel(text, error))
        })
        .collect()
}
