//! Handlers for reading a channel: pages of its history, and its head.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use chat_store::{PageLimit, PageRange};
use http_server::problem::Problem;

use super::request::{AppState, Channel, Turn};
use super::{page, problems};

/// How many events a page has if the caller sets no limit.
const DEFAULT_LIMIT: u64 = 50;
/// 2^53 - 1: the largest number that JavaScript reads exactly, and far beyond any log.
const LARGEST: u64 = (1 << 53) - 1;

/// `GET /channels/{channel}/messages`
pub(crate) async fn messages(
    State(state): State<Arc<AppState>>,
    turn: Turn,
    channel: Result<Channel, Problem>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let Channel(channel) = channel?;
    let asked = Asked::parse(query.as_deref().unwrap_or_default())?;
    let limit = PageLimit::events(asked.limit);
    let page = turn
        .read
        .page(&turn.caller, channel, asked.range, limit)
        .await;
    let page = page.map_err(|error| problems::failure(&error))?;
    let (bytes, answer) = page::answer(page)?;
    turn.hold(&state, bytes, answer)
}

/// `GET /channels/{channel}`
pub(crate) async fn head(
    turn: Turn,
    channel: Result<Channel, Problem>,
) -> Result<Response, Problem> {
    let Channel(channel) = channel?;
    let heads = turn.read.heads(&turn.caller, &[channel]).await;
    let heads = heads.map_err(|error| problems::failure(&error))?;
    let head = heads.into_iter().next().ok_or_else(problems::damaged)?;
    Ok(([(CACHE_CONTROL, "no-store")], Json(head)).into_response())
}

#[derive(Debug, PartialEq, Eq)]
struct Asked {
    range: PageRange,
    limit: usize,
}

impl Asked {
    /// Accepts each parameter at most once, and refuses unknown ones: a misspelt parameter must not seem to
    /// have worked.
    fn parse(query: &str) -> Result<Self, Problem> {
        let (mut after, mut before, mut limit) = (None, None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let slot = match name {
                "after" => &mut after,
                "before" => &mut before,
                "limit" => &mut limit,
                _ => {
                    return Err(problems::bad_request(name)
                        .detail("the parameters are `after` or `before`, and `limit`"));
                }
            };
            if slot.is_some() {
                return Err(problems::bad_request(name).detail("it is given twice"));
            }
            let number = value.parse().ok().filter(|number| *number <= LARGEST);
            *slot = Some(number.ok_or_else(|| {
                problems::bad_request(name)
                    .detail(format!("must be a whole number from 0 to {LARGEST}"))
            })?);
        }
        let range = match (after, before) {
            (None, None) => PageRange::Newest,
            (Some(seq), None) => PageRange::After(seq),
            (None, Some(seq)) => PageRange::Before(seq),
            (Some(_), Some(_)) => {
                return Err(problems::bad_request("before")
                    .detail("give either `after` or `before`, not both"));
            }
        };
        let limit = limit.unwrap_or(DEFAULT_LIMIT);
        let most = PageLimit::MAX.events;
        match usize::try_from(limit) {
            Ok(limit) if (1..=most).contains(&limit) => Ok(Self { range, limit }),
            _ => Err(problems::bad_request("limit").detail(format!("must be from 1 to {most}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_read() {
        for (query, range, limit) in [
            ("", PageRange::Newest, 50),
            ("limit=1000", PageRange::Newest, 1000),
            ("after=0", PageRange::After(0), 50),
            ("before=7&limit=2", PageRange::Before(7), 2),
            ("&after=9007199254740991&", PageRange::After(LARGEST), 50),
        ] {
            assert_eq!(
                Asked::parse(query).unwrap(),
                Asked { range, limit },
                "{query}"
            );
        }
    }

    #[test]
    fn what_cannot_be_a_query_is_refused() {
        for query in [
            "after=-1",
            "after=x",
            "after=",
            "after",
            "after=1&before=2",
            "after=1&after=2",
            "limit=0",
            "limit=1001",
            "since=1",
            "after=9007199254740992",
            "after=%31",
            "limit=99999999999999999999",
        ] {
            assert!(Asked::parse(query).is_err(), "{query}");
        }
    }
}
