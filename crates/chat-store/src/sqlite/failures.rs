//! What SQLite's errors mean.

use std::path::Path;

use rusqlite::ErrorCode;

use crate::OpenError;

/// Whether a part of the database cannot be read, or holds what was never written there.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::Error::{
        FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, Utf8Error,
    };
    is_corruption(error)
        || matches!(
            error,
            FromSqlConversionFailure(..)
                | IntegralValueOutOfRange(..)
                | InvalidColumnType(..)
                | Utf8Error(..)
        )
}

/// Whether a part of the database cannot be read, whoever asks and however often.
pub(super) fn is_corruption(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt)
}

/// Why a database cannot be used, and what to do about it.
pub(super) fn unusable(dir: &Path, error: &rusqlite::Error) -> OpenError {
    let advice = if is_damage(error) {
        ": it is damaged. Move the folder away and keep all that is in it, above all its write-ahead \
         log (store.sqlite3-wal, or store.sqlite3-wal.damaged-1 and so on); then put the newest good \
         copy back with `hark restore`"
    } else {
        ""
    };
    OpenError::Unusable {
        dir: dir.to_owned(),
        reason: format!("{error}{advice}"),
    }
}
