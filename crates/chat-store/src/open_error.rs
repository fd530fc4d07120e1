//! What an operator can do about a store that cannot be opened.

use std::path::PathBuf;

use crate::StoreError;

/// Why a store was not opened, checked, copied, put back or brought to another format. The text says
/// what to do.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The folder was written by a newer version of the program.
    #[error(
        "the data in {} has format {found}, this program knows up to {known}: use the newer program that wrote it",
        path.display()
    )]
    NewerSchema {
        /// The database file.
        path: PathBuf,
        /// Format of the data.
        found: i64,
        /// Newest format that this program knows.
        known: i64,
    },
    /// Another process has the folder open.
    #[error("the data folder {} is in use by another process: stop that one first, or choose another folder", dir.display())]
    Locked {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder cannot be used: not writable, not creatable, not a store.
    #[error("the data folder {} cannot be used: {reason}", dir.display())]
    Unusable {
        /// The folder.
        dir: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// A copy cannot be made, or is none.
    #[error("the copy {}: {reason}", file.display())]
    BadCopy {
        /// Its file.
        file: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// The database cannot be used as it is: password, rights, certificate, the schema of another
    /// version.
    #[error("the database {database} cannot be used: {reason}")]
    UnusableDatabase {
        /// Its server and name.
        database: String,
        /// Why, and what to do.
        reason: String,
    },
    /// An option has a value that makes no sense.
    #[error("store option {option}: {reason}")]
    BadOption {
        /// The option's name.
        option: &'static str,
        /// What it must be.
        reason: String,
    },
    /// It could be opened, but not be used for what was asked.
    #[error(transparent)]
    Store(#[from] StoreError),
}
