use chat_store::StoreError;
use rights::Refusal;
use thiserror::Error;

/// Why a message was not stored, or a channel not read.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// The caller may not, or nobody can say now whether he may.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}
