//! Channels of which nothing is kept. They are remembered for a while, so that whoever comes back
//! finds the head where it was; then their rows go, or random channels would fill the disk.
//!
//! All that stays of them is the highest epoch that any of them had. A channel that is posted to
//! again begins at 1 in a later epoch than that, by which everybody knows that it is another log.

use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::{Progress, STEP_CHANNELS, Sweeper};
use crate::sqlite::memory::{Memory, epoch_value, stored_epoch};
use crate::sqlite::queries::unless_damaged;

/// A channel that was empty at some time.
struct Empty {
    n: i64,
    channel_no: i64,
    floor_seq: u64,
}

/// What became of it.
enum Fate {
    Forgotten,
    /// Its senders' keys are remembered: a post that comes again must be found.
    Stays,
    /// It is not empty any more, or has been emptied again since.
    Passed,
}

impl Sweeper {
    /// Forgets some channels that have been empty for long, or the longest of too many.
    pub(super) fn forget_channels(
        &mut self,
        connection: &Connection,
        memory: &mut Memory,
        expiry: u64,
        progress: &mut Progress,
    ) -> rusqlite::Result<()> {
        if self.tidy(connection, memory)? {
            progress.more = true;
            return Ok(());
        }
        let entries = self.due(connection, expiry)?;
        let Some(last) = entries.last().map(|entry| entry.n) else {
            return Ok(());
        };
        let mut requeue = connection.prepare_cached(
            "INSERT INTO empty_channels (n, channel_no, floor_seq, since) VALUES (?1, ?2, ?3, ?4)",
        )?;
        let mut stay = 0;
        for entry in &entries {
            match forget(connection, memory, entry)? {
                Fate::Forgotten => progress.forgotten += 1,
                Fate::Passed => {}
                Fate::Stays => {
                    let (n, no, seq) = (memory.next_empty, entry.channel_no, entry.floor_seq);
                    requeue.execute(params![n, no, seq, expiry])?;
                    memory.next_empty += 1;
                    stay += 1;
                }
            }
        }
        connection
            .prepare_cached("DELETE FROM empty_channels WHERE n <= ?1")?
            .execute([last])?;
        let seen = entries.len() as u64;
        memory.empty_entries = memory.empty_entries.saturating_sub(seen - stay);
        self.surplus = self.surplus.saturating_sub(seen);
        connection
            .prepare_cached("UPDATE state SET forgotten_epoch = max(forgotten_epoch, ?1)")?
            .execute([epoch_value(memory.forgotten_epoch)])?;
        // Where all stay, another look would find the same.
        progress.more |= entries.len() == STEP_CHANNELS && stay < seen;
        Ok(())
    }

    /// Removes some entries of channels that are in use again, or have another, once there seem to be
    /// too many: whoever empties one channel again and again must not push out the others. Whether
    /// it did; at the end it is known how many are too many.
    fn tidy(&mut self, connection: &Connection, memory: &mut Memory) -> rusqlite::Result<bool> {
        let seen = match self.tidied {
            Some(seen) => seen,
            // Not for each one more, since it looks at all of them.
            None if self.surplus == 0
                && memory.empty_entries > self.most_empty + self.most_empty / 8 =>
            {
                0
            }
            None => return Ok(false),
        };
        let last: Option<i64> = connection
            .prepare_cached(
                "SELECT max(n) FROM (
                    SELECT n FROM empty_channels WHERE n > ?1 ORDER BY n LIMIT ?2)",
            )?
            .query_row(params![seen, STEP_CHANNELS], |row| row.get(0))?;
        self.tidied = last;
        let Some(last) = last else {
            self.surplus = memory.empty_entries.saturating_sub(self.most_empty);
            return Ok(self.surplus > 0);
        };
        let gone = connection
            .prepare_cached(
                "DELETE FROM empty_channels WHERE n > ?1 AND n <= ?2 AND NOT EXISTS (
                    SELECT 1 FROM channels c
                    WHERE c.channel_no = empty_channels.channel_no
                    AND c.floor_seq = empty_channels.floor_seq
                    AND NOT EXISTS (SELECT 1 FROM places p WHERE p.channel_no = c.channel_no)
                    AND NOT EXISTS (SELECT 1 FROM new_places p WHERE p.channel_no = c.channel_no))",
            )?
            .execute(params![seen, last])?;
        memory.empty_entries = memory.empty_entries.saturating_sub(gone as u64);
        Ok(true)
    }

    /// The entries whose time has come, the oldest.
    fn due(&self, connection: &Connection, expiry: u64) -> rusqlite::Result<Vec<Empty>> {
        let mut statement = connection.prepare_cached(
            "SELECT n, channel_no, floor_seq, since FROM empty_channels ORDER BY n LIMIT ?1",
        )?;
        let mut rows = statement.query([STEP_CHANNELS])?;
        let mut due = Vec::new();
        while let Some(row) = rows.next()? {
            let since: u64 = row.get(3)?;
            if since.saturating_add(self.empty_for) > expiry && due.len() as u64 >= self.surplus {
                break;
            }
            due.push(Empty {
                n: row.get(0)?,
                channel_no: row.get(1)?,
                floor_seq: row.get(2)?,
            });
        }
        Ok(due)
    }
}

fn forget(connection: &Connection, memory: &mut Memory, entry: &Empty) -> rusqlite::Result<Fate> {
    let no = entry.channel_no;
    let found = connection
        .prepare_cached(
            "SELECT uuid, (SELECT max(epoch) FROM epochs WHERE epochs.channel_no = ?1),
                EXISTS (SELECT 1 FROM sender_keys WHERE sender_keys.channel_no = ?1)
             FROM channels WHERE channel_no = ?1 AND floor_seq = ?2
             AND NOT EXISTS (SELECT 1 FROM places WHERE places.channel_no = ?1)
             AND NOT EXISTS (SELECT 1 FROM new_places new WHERE new.channel_no = ?1)",
        )?
        .query_row(params![no, entry.floor_seq], |row| {
            let epoch = row.get::<_, Option<i64>>(1)?.unwrap_or(0);
            Ok((
                Uuid::from_bytes(row.get(0)?),
                stored_epoch(1, epoch)?,
                row.get(2)?,
            ))
        })
        .optional();
    let (channel, epoch) = match unless_damaged(found)? {
        None => return Ok(Fate::Passed),
        Some((_, _, true)) => return Ok(Fate::Stays),
        Some((channel, epoch, false)) => (channel, epoch),
    };
    for delete in [
        "DELETE FROM epochs WHERE channel_no = ?1",
        "DELETE FROM channels WHERE channel_no = ?1",
    ] {
        connection.prepare_cached(delete)?.execute([no])?;
    }
    memory.forgotten_epoch = memory.forgotten_epoch.max(epoch);
    memory.logs.forget(channel.into());
    Ok(Fate::Forgotten)
}
