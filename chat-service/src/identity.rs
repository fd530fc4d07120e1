//! Who calls, and what they may do: the two questions that log-in will answer differently.
//!
//! Open mode: the caller is who they say they are, and may do everything.

use axum::http::HeaderMap;
use chat_model::{ChannelId, Sender};
use service_kit::problem::Problem;

/// Who makes a request.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// What the caller claims to be, if anything.
    pub(crate) claimed: Option<Sender>,
}

/// What a caller wants to do with a channel.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Action {
    Post,
    Read,
}

/// Resolves who calls. `claimed` is what the request itself says; the headers are where a log-in
/// will look.
pub(crate) fn caller(_headers: &HeaderMap, claimed: Option<Sender>) -> Caller {
    Caller { claimed }
}

/// Whether `caller` may do `action` in `channel`; the refusal is a 401 or 403 that says why.
pub(crate) fn permit(
    _caller: &Caller,
    _action: Action,
    _channel: ChannelId,
) -> Result<(), Problem> {
    Ok(())
}
