//! What a caller of the store can do about a failure.

use std::time::Duration;

/// Why a store did not do what it was asked.
///
/// The variants are what a caller can do about it; the text in `reason` is for the log and the
/// operator, not for whoever sent the request.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store cannot work at the moment. Nothing was stored; the same call may succeed later.
    #[error("the store is not available: {reason}")]
    Unavailable {
        /// What went wrong, for the operator.
        reason: String,
    },
    /// The part of the store that this needs is damaged; others are not, or not known to be. Nothing
    /// was stored, and trying again is of no use before somebody has repaired it.
    #[error("a part of the store is damaged: {reason}")]
    Damaged {
        /// What was found, for the operator.
        reason: String,
    },
    /// The commit failed in a way that leaves open whether the message is there.
    ///
    /// Trying again is safe with the same sender's id or key, and may double without one.
    #[error("it is not known whether the message was stored: {reason}")]
    OutcomeUnknown {
        /// What went wrong, for the operator.
        reason: String,
    },
    /// The sender's id or idempotency key was used before, with another message.
    #[error("{what} was already used in this channel with another message")]
    KeyReused {
        /// Which of the two it was.
        what: ReusedKey,
    },
    /// No more sender's ids and keys can be remembered of this sender, of this channel or at all, and
    /// none is old enough to be forgotten.
    ///
    /// Posts without an id and key of the sender's own are not affected.
    #[error("too many ids and keys {share} are remembered already; try again in {} s", retry_after.as_secs())]
    KeysFull {
        /// Whose share is used up.
        share: Share,
        /// When the oldest key becomes old enough to make room, at least 1 s.
        retry_after: Duration,
    },
    /// The event is larger than the caller allowed. Nothing was stored.
    #[error("the event takes {size} bytes, more than the {limit} allowed")]
    TooLarge {
        /// Bytes of the encoded event.
        size: usize,
        /// The limit that came with the request, in bytes.
        limit: usize,
    },
}

/// Whose share of a bound was used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// The sender's, [`Append::owner`](crate::Append::owner).
    Sender,
    /// The channel's.
    Channel,
    /// All that there is: nobody has more than a little of it.
    All,
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sender => "of this sender",
            Self::Channel => "of this channel",
            Self::All => "of everybody",
        })
    }
}

/// What a sender used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReusedKey {
    /// The message's `id`.
    Id,
    /// The `Idempotency-Key`.
    IdempotencyKey,
}

impl std::fmt::Display for ReusedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Id => "the id",
            Self::IdempotencyKey => "the Idempotency-Key",
        })
    }
}

impl StoreError {
    pub(crate) fn damaged(reason: impl std::fmt::Display) -> Self {
        Self::Damaged {
            reason: reason.to_string(),
        }
    }

    pub(crate) fn unavailable(reason: impl std::fmt::Display) -> Self {
        Self::Unavailable {
            reason: reason.to_string(),
        }
    }
}
