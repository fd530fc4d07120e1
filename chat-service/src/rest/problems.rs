//! All error answers of chat-service. `docs/protocol.md` lists their types.

use std::time::Duration;

use axum::http::StatusCode;
use chat_model::{MessageError, NotAChannel};
use chat_store::{ReusedKey, Share, StoreError};
use http_server::problem::Problem;
use rights::Refusal;
use service_kit::config::size;

use crate::budget::Full;
use crate::failure::Failure;
use crate::rate_limit::{Exceeded, What};

/// When to retry after the store could not store something: every second or two it checks whether it can
/// write again.
const STORE_RETRY: Duration = Duration::from_secs(2);
/// When to retry after there was no room for a body or an answer: those of others take milliseconds.
const ROOM_RETRY: Duration = Duration::from_secs(1);

pub(crate) fn not_a_channel(text: &str, error: NotAChannel) -> Problem {
    bad_request("channel").detail(format!("{:?}: {error}", shortened(text)))
}

pub(crate) fn not_a_user(text: &str) -> Problem {
    bad_request("user").detail(format!(
        "{:?}: a user is named by a UUID, like a channel",
        shortened(text)
    ))
}

/// 400 for a part of the request other than the body's fields.
pub(crate) fn bad_request(part: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad-request", "Bad request").with("parameter", part)
}

pub(crate) fn invalid_field(field: &str, detail: &str) -> Problem {
    Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "invalid-field",
        "Invalid field",
    )
    .with("field", field)
    .detail(detail)
}

pub(crate) fn unreadable_body(detail: impl Into<String>) -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        "unreadable-body",
        "Unreadable body",
    )
    .detail(detail)
}

pub(crate) fn message(error: &MessageError) -> Problem {
    match error {
        MessageError::Unreadable { .. } => unreadable_body(error.to_string()),
        MessageError::Field { field, detail } => invalid_field(field, detail),
    }
}

/// 413 before the whole body was read. It closes the connection, which is not worth keeping.
pub(crate) fn body_too_large(limit: usize) -> Problem {
    too_large(limit)
        .detail(format!(
            "the body may have at most {} here",
            size::format(limit as u64)
        ))
        .closing()
}

fn too_large(limit: usize) -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Too large").with("limit", limit)
}

pub(crate) fn unsupported_type(detail: impl Into<String>) -> Problem {
    Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported-media-type",
        "Unsupported media type",
    )
    .detail(detail)
}

pub(crate) fn body_timeout() -> Problem {
    Problem::new(
        StatusCode::REQUEST_TIMEOUT,
        "body-timeout",
        "Body took too long",
    )
    .detail("the body did not arrive in time; send it again")
    .closing()
}

pub(crate) fn failure(error: &Failure) -> Problem {
    match error {
        Failure::Refused(refusal) => refused(refusal),
        Failure::Store(error) => store(error),
    }
}

fn refused(refusal: &Refusal) -> Problem {
    match refusal {
        Refusal::Forbidden { .. } => Problem::new(StatusCode::FORBIDDEN, "forbidden", "Forbidden")
            .detail(refusal.to_string()),
        Refusal::Unavailable { .. } => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "rights-unavailable",
            "Rights cannot be looked up",
        )
        .detail("the service cannot check now whether you may do this; try again")
        .retry_after(ROOM_RETRY)
        .caused_by(refusal),
    }
}

pub(crate) fn too_many_posts(exceeded: Exceeded) -> Problem {
    match exceeded.what {
        What::Requests => rate_limit(exceeded, "posts", "posts too often"),
        What::Bytes => rate_limit(exceeded, "bytes", "posts too much"),
    }
}

pub(crate) fn too_many_reads(exceeded: Exceeded) -> Problem {
    rate_limit(exceeded, "reads", "reads too often")
}

fn rate_limit(exceeded: Exceeded, limit: &str, does: &str) -> Problem {
    let (of, who) = if exceeded.by_network {
        ("network", "the network of this address")
    } else {
        ("address", "this address")
    };
    too_much("rate-limit", "Too many requests", of)
        .with("limit", limit)
        .detail(format!("{who} {does}; wait as long as Retry-After says"))
        .retry_after(exceeded.wait)
}

/// 429; the rest of the body is not read.
pub(crate) fn too_many_bodies(full: Full) -> Problem {
    let of = whose(full);
    let problem = too_much("too-many-bodies", "Too many bodies", of).detail(format!(
        "no room for more bodies of {} at a time; send it again when others have been answered",
        named(of)
    ));
    problem.retry_after(ROOM_RETRY).closing()
}

pub(crate) fn too_many_answers(full: Full) -> Problem {
    let of = whose(full);
    let problem = too_much("too-many-answers", "Too many answers", of).detail(format!(
        "no room for more answers to {} at a time; ask again when others have been read",
        named(of)
    ));
    problem.retry_after(ROOM_RETRY)
}

fn whose(full: Full) -> &'static str {
    match full {
        Full::Client => "address",
        Full::Network => "network",
        Full::All => "everybody",
    }
}

fn keys_full(share: Share, retry_after: Duration) -> Problem {
    let of = match share {
        Share::Sender => "address",
        Share::Channel => "channel",
        Share::All => "everybody",
    };
    let problem = too_much("keys-full", "Too many ids and keys", of).detail(format!(
        "no more ids and keys of {} can be remembered now; post without one, or later",
        named(of)
    ));
    problem.retry_after(retry_after)
}

/// A 429 that names whose limit was exceeded in `of`.
fn too_much(slug: &str, title: &'static str, of: &str) -> Problem {
    Problem::new(StatusCode::TOO_MANY_REQUESTS, slug, title).with("of", of)
}

fn named(of: &str) -> String {
    match of {
        "everybody" => of.to_owned(),
        _ => format!("this {of}"),
    }
}

/// The store's failures. The caller is told what it can change; internal reasons are logged.
pub(crate) fn store(error: &StoreError) -> Problem {
    match error {
        StoreError::TooLarge { size: bytes, limit } => too_large(*limit).detail(format!(
            "the event takes {bytes} bytes once encoded and stored; at most {limit} fit"
        )),
        StoreError::KeyReused { what } => {
            let (field, name) = match what {
                ReusedKey::Id => ("id", "id"),
                ReusedKey::IdempotencyKey => ("Idempotency-Key", "Idempotency-Key"),
            };
            Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "key-reused",
                "Key used before",
            )
            .with("field", field)
            .detail(format!(
                "this {name} was already used in this channel for another message; \
                     choose a new one for a new message"
            ))
        }
        StoreError::KeysFull { share, retry_after } => keys_full(*share, *retry_after),
        StoreError::OutcomeUnknown { .. } => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "outcome-unknown",
            "Outcome unknown",
        )
        .detail(
            "it is not known whether the message was stored; posting it again is safe with \
                 the same id or Idempotency-Key, and may double it without one",
        )
        .retry_after(STORE_RETRY)
        .caused_by(error),
        StoreError::Damaged { .. } => damaged().caused_by(error),
        // Ingest logs the beginning and the end of an outage, so single requests are logged at debug only.
        _ => {
            tracing::debug!(%error, "the store failed a request");
            Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "store-unavailable",
                "Store unavailable",
            )
            .detail("the store cannot do this at the moment; nothing was stored")
            .retry_after(STORE_RETRY)
        }
    }
}

/// What was requested can no longer be read or written; the rest of the store goes on.
pub(crate) fn damaged() -> Problem {
    Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "store-damaged",
        "Store damaged",
    )
    .detail("the part of the store that this needs is damaged; nothing was stored")
}

/// Enough of a caller's text to recognise it.
fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}
