//! Whether the store can write, without writing for every question.

use std::time::{Duration, Instant};

use rusqlite::Connection;
use service_kit::log_limit::Working;

use crate::StoreError;

/// How long a success is believed.
const FRESH: Duration = Duration::from_secs(10);

/// Bytes that a probe asks of a disk that was full, or of which nothing is known yet: room for some
/// of the largest messages, so that readiness is not green for the last free page.
const ROOM: u32 = 256 << 10;

/// Writes a page, and as many bytes besides. What a row has already would not be written again.
pub(super) fn probe(connection: &Connection, bytes: u32) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE probe SET filler = zeroblob(CASE length(filler) WHEN ?1 THEN ?1 + 1 ELSE ?1 END)",
        )?
        .execute([bytes])?;
    Ok(())
}

pub(super) struct Health {
    last_success: Instant,
    broken: bool,
    /// Whether it has ever written.
    is_new: bool,
    /// What the log says. On a full disk small messages find room, and large ones none.
    told: Working,
}

impl Health {
    /// A store that was just opened has been read, not written.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            last_success: now.checked_sub(FRESH).unwrap_or(now),
            broken: false,
            is_new: true,
            told: Working::default(),
        }
    }

    pub(super) fn is_fresh(&self) -> bool {
        !self.broken && self.last_success.elapsed() < FRESH
    }

    /// The sizes to write one after the other to find out.
    pub(super) fn probe(&self) -> impl Iterator<Item = u32> + use<> {
        let large = (self.broken || self.is_new).then_some(ROOM);
        large.into_iter().chain([0])
    }

    pub(super) fn succeeded(&mut self) {
        self.last_success = Instant::now();
        self.is_new = false;
        self.broken = false;
        if self.told.tells(true) {
            tracing::info!("the store can write again");
        }
    }

    pub(super) fn failed(&mut self, error: &StoreError) {
        self.broken = true;
        if self.told.tells(false) {
            tracing::error!(%error, "the store cannot write");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_probe_writes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hark.db");
        let connection = crate::sqlite::schema::prepare(&path, None).unwrap();
        let written = || {
            std::fs::metadata(dir.path().join("hark.db-wal"))
                .unwrap()
                .len()
        };
        let mut before = written();
        for bytes in [0, 0, ROOM, ROOM, 0, 0] {
            probe(&connection, bytes).unwrap();
            assert!(written() > before, "{bytes}");
            before = written();
        }
    }
}
