//! An fsync that failed.
//!
//! The system tells of a write that was lost once, and takes its pages for clean from then on: the
//! next fsync succeeds without them, and what is read comes from memory. A process that went on
//! would answer for what stands behind a hole in the log. So it writes nothing more and ends; the
//! next one brings all that it finds to the disk anew before it serves (`schema::fold`).

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use rusqlite::ffi;

use crate::alarm::Alarm;

/// Whether every fsync so far has succeeded. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Syncs {
    has_failed: Arc<AtomicBool>,
    alarm: Alarm,
}

impl Syncs {
    /// `alarm` rings when one fails.
    pub(super) fn new(alarm: &Alarm) -> Self {
        Self {
            has_failed: Arc::default(),
            alarm: alarm.clone(),
        }
    }

    /// Whether this error is that of an fsync. The first one ends the store's use.
    pub(super) fn judge(&self, error: &rusqlite::Error) {
        let failed = error.sqlite_error().is_some_and(|error| {
            matches!(
                error.extended_code,
                ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC
            )
        });
        if failed && !self.has_failed.swap(true, Relaxed) {
            tracing::error!(
                %error,
                "fsync failed: what the disk has kept is not known any more; the process ends, \
                 and has to be started again to go on with what is there"
            );
            self.alarm.ring();
        }
    }

    /// # Errors
    /// When one has failed: nothing is to be written any more.
    pub(super) fn check(&self) -> rusqlite::Result<()> {
        if !self.has_failed.load(Relaxed) {
            return Ok(());
        }
        Err(rusqlite::Error::SqliteFailure(
            ffi::Error::new(ffi::SQLITE_IOERR_FSYNC),
            Some("fsync failed before; the process is ending".to_owned()),
        ))
    }
}
