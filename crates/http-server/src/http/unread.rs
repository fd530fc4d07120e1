//! Handles the rest of a request that was answered before its body was read.

use std::time::Duration;

use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use axum::response::Response;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body as HttpBody, Incoming};
use tokio::time::timeout;

use super::guarded::Phase;

/// How much of such a body is read, in bytes and in time: less than a new connection costs both sides.
const MOST: usize = 64 * 1024;
const PATIENCE: Duration = Duration::from_secs(1);

/// Reads the rest if it is short and arrives soon. Otherwise the answer ends the connection and says so
/// (RFC 9112, section 9.6). A client that waits for 100 Continue need not send its body at all.
pub(super) async fn settle(body: Incoming, expects: bool, response: &mut Response, phase: &Phase) {
    let closes = response.headers().contains_key(CONNECTION);
    if !closes && !expects && run_out(body).await {
        return;
    }
    phase.note_unread_body();
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(CONNECTION, close);
}

/// Reads the body; returns whether it reached the end.
async fn run_out(body: Incoming) -> bool {
    if body.size_hint().lower() > MOST as u64 {
        return false;
    }
    let mut body = Limited::new(body, MOST);
    let rest = async {
        while let Some(frame) = body.frame().await {
            frame?;
        }
        Ok::<_, axum::BoxError>(())
    };
    matches!(timeout(PATIENCE, rest).await, Ok(Ok(())))
}
