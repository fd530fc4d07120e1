use chat_store::StoreError;
use rights::Refusal;
use thiserror::Error;

/// Why a message was not stored, or a channel not read.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// The caller may not do this, or it cannot be determined now whether it may.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
