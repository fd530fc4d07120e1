use std::time::Duration;

use axum::http::StatusCode;
use http_server::http_client::NoAnswer;

use super::ANSWER_TIME;

/// Why chat-service did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HistoryError {
    /// It cannot be reached.
    #[error("chat-service cannot be reached: {0}")]
    Unreachable(#[from] NoAnswer),
    /// The connection broke in the middle of an answer.
    #[error("chat-service's answer broke off: {0}")]
    BrokenOff(NoAnswer),
    /// It took too long.
    #[error("chat-service does not answer within {} s", ANSWER_TIME.as_secs())]
    Late,
    /// It answered with a status that is not a success, and said why.
    #[error("chat-service answered {status}{why}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// Empty, or the text that follows the status.
        why: String,
    },
    /// This node has asked too often, and may ask again after this time.
    #[error("chat-service was asked too often: name this node in limits.nodes there")]
    TooOften(Duration),
    /// Its answer is not what the protocol says.
    #[error("chat-service's answer cannot be read: {0}")]
    Unreadable(String),
}

impl HistoryError {
    /// Whether another chat-service may be able to answer the same request.
    pub(super) fn may_be_one_server(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::BrokenOff(_) | Self::Late => true,
            Self::Refused { status, .. } => status.is_server_error(),
            Self::TooOften(_) => true,
            Self::Unreadable(_) => false,
        }
    }
}
