//! Looking at a database without changing it: a folder's, which services may be using, or a copy.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::schema::{BUSY_TIMEOUT, check_format};
use crate::OpenError;

/// A connection that only reads, to what must be a store.
pub(super) fn look_at(database: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(database, flags)
        .and_then(|connection| {
            connection.busy_timeout(BUSY_TIMEOUT)?;
            Ok(connection)
        })
        .map_err(|error| OpenError::BadCopy {
            file: database.to_owned(),
            reason: error.to_string(),
        })?;
    check_format(&connection, database)?;
    Ok(connection)
}
