//! The start of the log, whatever the channels: what has expired, and what there is no room for.

use std::collections::HashMap;

use rusqlite::Connection;
use uuid::Uuid;

use super::floors::{Floor, raise_floors};
use super::{Progress, STEP_BYTES, STEP_EVENTS, Sweeper};
use crate::expiry_clock::milliseconds;
use crate::retention::{EARLY, EVENT_BYTES};
use crate::sqlite::memory::Memory;
use crate::sqlite::places;

impl Sweeper {
    /// Removes events from the start of the log: the expired ones, and as many as the size asks.
    pub(super) fn remove_oldest(
        &self,
        connection: &Connection,
        memory: &mut Memory,
        expiry: u64,
    ) -> rusqlite::Result<Progress> {
        let cutoff = expiry.checked_sub(self.max_age);
        let mut statement = connection.prepare_cached(
            "SELECT pos, uuid, seq, at, kept_at, length(event), bytes_to, channel_no
             FROM log CROSS JOIN channels USING (channel_no) ORDER BY pos LIMIT ?1",
        )?;
        let mut rows = statement.query([STEP_EVENTS])?;
        let mut floors: HashMap<i64, Floor> = HashMap::new();
        let (mut last, mut bytes) = (0_i64, 0);
        let mut progress = Progress::default();
        while bytes <= STEP_BYTES
            && let Some(row) = rows.next()?
        {
            let kept_at: u64 = row.get(4)?;
            let has_expired = cutoff.is_some_and(|cutoff| kept_at <= cutoff);
            if !has_expired {
                if memory.log_bytes <= self.max_bytes {
                    break;
                }
                progress.early += u64::from(kept_at + milliseconds(EARLY) > expiry);
            }
            let size = row.get::<_, u64>(5)? + EVENT_BYTES;
            memory.log_bytes = memory.log_bytes.saturating_sub(size);
            bytes += size;
            last = row.get(0)?;
            progress.removed += 1;
            floors.insert(
                row.get(7)?,
                Floor {
                    channel: Uuid::from_bytes(row.get(1)?).into(),
                    seq: row.get(2)?,
                    at: row.get(3)?,
                    bytes: row.get(6)?,
                },
            );
        }
        drop(rows);
        if progress.removed > 0 {
            places::settle(connection, memory)?;
            connection
                .prepare_cached("DELETE FROM log WHERE pos <= ?1")?
                .execute([last])?;
            raise_floors(connection, memory, &floors, expiry)?;
        }
        Ok(progress)
    }
}
