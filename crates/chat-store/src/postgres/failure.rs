//! What the failure of a statement means for its transaction and its connection.

use std::error::Error as _;

use tokio_postgres::Error;
use tokio_postgres::error::{Severity, SqlState};

use crate::{OpenError, StoreError};

/// Why a statement did not succeed.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// The connection is of no use any more. If COMMIT was sent before, it may have happened.
    Lost(String),
    /// It met another transaction and lost; the same again may succeed. Nothing was stored.
    Conflict(String),
    /// The server refused it. Nothing was stored.
    Refused(Refusal),
    /// There is no connection, and it will not get better by itself.
    Unusable(OpenError),
}

/// What the server said.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    code: SqlState,
    pub(super) reason: String,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let reason = words(&error);
        let Some(said) = error.as_db_error() else {
            return Self::Lost(reason);
        };
        let ends_session = matches!(
            said.parsed_severity(),
            Some(Severity::Fatal | Severity::Panic)
        );
        match said.code() {
            code if ends_session => {
                tracing::debug!(code = code.code(), reason, "session ended by the server");
                Self::Lost(reason)
            }
            // The server has become a replica: the one to write to is elsewhere.
            &SqlState::READ_ONLY_SQL_TRANSACTION => Self::Lost(reason),
            &SqlState::T_R_SERIALIZATION_FAILURE
            | &SqlState::T_R_DEADLOCK_DETECTED
            | &SqlState::LOCK_NOT_AVAILABLE => Self::Conflict(reason),
            code => Self::Refused(Refusal {
                code: code.clone(),
                reason,
            }),
        }
    }
}

impl Refusal {
    /// Whether one of several messages may have caused it, so that it is worth trying them one by
    /// one: class 22 (data), 23 (integrity) or 54 (a limit), not the disk, memory or an operator.
    /// Damage concerns those who need what is damaged.
    pub(super) fn may_be_one_message(&self) -> bool {
        self.is_damage()
            || ["22", "23", "54"]
                .iter()
                .any(|class| self.code.code().starts_with(class))
    }

    /// The server itself refuses to read a part of the database: a page that is no page or whose
    /// checksum is wrong, a piece of a large value that is gone (XX001); an index that contradicts
    /// itself (XX002).
    pub(super) fn is_damage(&self) -> bool {
        [SqlState::DATA_CORRUPTED, SqlState::INDEX_CORRUPTED].contains(&self.code)
    }

    /// Class 53: no room on the disk, in memory, for connections.
    pub(super) fn is_lack_of_room(&self) -> bool {
        self.code.code().starts_with("53")
    }
}

impl Failure {
    /// A row holds what was never written there.
    pub(super) fn damaged(what: impl std::fmt::Display) -> Self {
        Self::Refused(Refusal {
            code: SqlState::DATA_CORRUPTED,
            reason: format!("{what} makes no sense"),
        })
    }

    pub(super) fn reason(&self) -> String {
        match self {
            Self::Lost(reason) | Self::Conflict(reason) => reason.clone(),
            Self::Refused(refusal) => refusal.reason.clone(),
            Self::Unusable(error) => error.to_string(),
        }
    }

    pub(super) fn is_damage(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.is_damage())
    }
}

/// Of a transaction that did not come to its COMMIT.
impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            damaged if damaged.is_damage() => Self::damaged(damaged.reason()),
            other => Self::unavailable(other.reason()),
        }
    }
}

/// Of what is done to open a store.
impl From<Failure> for OpenError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unusable(error) => error,
            other => Self::Store(other.into()),
        }
    }
}

/// The whole chain of an error in words: the driver keeps the reason below its own.
pub(super) fn words(error: &Error) -> String {
    if let Some(said) = error.as_db_error() {
        let code = said.code().code();
        return format!("{} (SQLSTATE {code})", said.message());
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some errors repeat their cause.
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
