//! Channels of which nothing is kept. They are remembered for a while, so that whoever comes back
//! finds the head where it was; then their rows go, or random channels would fill the disk.
//!
//! All that stays of them is the highest epoch that any of them had. A channel that is posted to
//! again begins at 1 in a later epoch than that, by which everybody knows that it is another log.

use chat_model::{ChannelId, Epoch};
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::{Progress, STEP_CHANNELS, Sweeper, Work};
use crate::sqlite::failures::is_damage;
use crate::sqlite::memory::Memory;
use crate::sqlite::values::{epoch_value, stored_epoch};

/// What is to be done with some entries of channels that were empty at some time.
pub(super) enum Forgetting {
    /// Those behind the first number up to the second are looked through.
    Tidy { seen: i64, last: i64 },
    /// Their time has come.
    Due(Vec<Entry>),
}

pub(super) struct Entry {
    n: i64,
    channel_no: i64,
    floor_seq: u64,
    fate: Fate,
}

/// What becomes of it.
enum Fate {
    Forgotten {
        channel: ChannelId,
        epoch: Epoch,
    },
    /// Its senders' keys are remembered: a post that comes again must be found.
    Stays,
    /// It is not empty any more, or has been emptied again since, or it is damaged.
    Passed,
}

impl Sweeper {
    /// Finds some channels that have been empty for long, or the longest of too many.
    pub(super) fn next_forgetting(
        &mut self,
        connection: &Connection,
        memory: &Memory,
        expiry: u64,
    ) -> rusqlite::Result<Work> {
        if self.around.forgetting {
            return Ok(Work::Nothing);
        }
        let next = self.find_forgetting(connection, memory, expiry);
        let next = self
            .around
            .unless_damaged("table empty_channels", next.map(Some))?;
        self.around.forgetting = next.is_none();
        Ok(match next.flatten() {
            Some(forgetting) => Work::Forgetting(forgetting),
            None => Work::Nothing,
        })
    }

    fn find_forgetting(
        &mut self,
        connection: &Connection,
        memory: &Memory,
        expiry: u64,
    ) -> rusqlite::Result<Option<Forgetting>> {
        if let Some(tidy) = self.tidy(connection, memory)? {
            return Ok(Some(tidy));
        }
        let entries = self.due(connection, expiry)?;
        Ok((!entries.is_empty()).then_some(Forgetting::Due(entries)))
    }

    /// Finds some entries to look through, once there seem to be too many: those of channels that are
    /// in use again, or have another, go. Whoever empties one channel again and again must not push
    /// out the others. At the end it is known how many are too many.
    fn tidy(
        &mut self,
        connection: &Connection,
        memory: &Memory,
    ) -> rusqlite::Result<Option<Forgetting>> {
        let seen = match self.tidied {
            Some(seen) => seen,
            // Not for each one more, since it looks at all of them.
            None if self.surplus == 0
                && memory.empty_entries > self.most_empty + self.most_empty / 8 =>
            {
                0
            }
            None => return Ok(None),
        };
        let last: Option<i64> = connection
            .prepare_cached(
                "SELECT max(n) FROM (
                    SELECT n FROM empty_channels WHERE n > ?1 ORDER BY n LIMIT ?2)",
            )?
            .query_row(params![seen, STEP_CHANNELS], |row| row.get(0))?;
        if last.is_none() {
            self.tidied = None;
            self.surplus = memory.empty_entries.saturating_sub(self.most_empty);
        }
        Ok(last.map(|last| Forgetting::Tidy { seen, last }))
    }

    /// The entries whose time has come, the oldest.
    fn due(&self, connection: &Connection, expiry: u64) -> rusqlite::Result<Vec<Entry>> {
        let mut statement = connection.prepare_cached(
            "SELECT n, channel_no, floor_seq, since FROM empty_channels ORDER BY n LIMIT ?1",
        )?;
        // Those that are older are about to be forgotten.
        let keys_after = expiry.checked_sub(self.key_age);
        let keys_after = keys_after.map_or(-1, |at| i64::try_from(at).unwrap_or(i64::MAX));
        let mut rows = statement.query([STEP_CHANNELS])?;
        let mut due = Vec::new();
        while let Some(row) = rows.next()? {
            // A damaged entry leads nowhere, and goes.
            let since: u64 = row.get(3).unwrap_or(0);
            if since.saturating_add(self.empty_for) > expiry && due.len() as u64 >= self.surplus {
                break;
            }
            let channel_no = row.get(1).unwrap_or(0);
            let floor_seq = row.get(2).unwrap_or(0);
            due.push(Entry {
                n: row.get(0)?,
                channel_no,
                floor_seq,
                fate: Fate::of(connection, channel_no, floor_seq, keys_after)?,
            });
        }
        Ok(due)
    }

    /// Notes that it was done.
    pub(super) fn note_forgotten(&mut self, done: &Forgetting) {
        match done {
            Forgetting::Tidy { last, .. } => self.tidied = Some(*last),
            Forgetting::Due(entries) => {
                self.surplus = self.surplus.saturating_sub(entries.len() as u64);
            }
        }
    }
}

impl Forgetting {
    pub(super) fn carry_out(
        &self,
        connection: &Connection,
        memory: &mut Memory,
        expiry: u64,
        progress: &mut Progress,
    ) -> rusqlite::Result<()> {
        match self {
            Self::Tidy { seen, last } => {
                progress.more = true;
                tidy(connection, memory, *seen, *last)
            }
            Self::Due(entries) => forget(connection, memory, entries, expiry, progress),
        }
    }
}

fn tidy(
    connection: &Connection,
    memory: &mut Memory,
    seen: i64,
    last: i64,
) -> rusqlite::Result<()> {
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
    Ok(())
}

fn forget(
    connection: &Connection,
    memory: &mut Memory,
    entries: &[Entry],
    expiry: u64,
    progress: &mut Progress,
) -> rusqlite::Result<()> {
    let Some(last) = entries.last() else {
        return Ok(());
    };
    let mut requeue = connection.prepare_cached(
        "INSERT INTO empty_channels (n, channel_no, floor_seq, since) VALUES (?1, ?2, ?3, ?4)",
    )?;
    let mut stay = 0;
    for entry in entries {
        match entry.fate {
            Fate::Forgotten { channel, epoch } => {
                for delete in [
                    "DELETE FROM epochs WHERE channel_no = ?1",
                    "DELETE FROM channels WHERE channel_no = ?1",
                ] {
                    let mut delete = connection.prepare_cached(delete)?;
                    delete.execute([entry.channel_no])?;
                }
                memory.forgotten_epoch = memory.forgotten_epoch.max(epoch);
                memory.logs.forget(channel);
                progress.forgotten += 1;
            }
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
        .execute([last.n])?;
    let seen = entries.len() as u64;
    memory.empty_entries = memory.empty_entries.saturating_sub(seen - stay);
    connection
        .prepare_cached("UPDATE state SET forgotten_epoch = max(forgotten_epoch, ?1)")?
        .execute([epoch_value(memory.forgotten_epoch)])?;
    // Where all stay, another look would find the same.
    progress.more |= entries.len() == STEP_CHANNELS && stay < seen;
    Ok(())
}

impl Fate {
    fn of(
        connection: &Connection,
        channel_no: i64,
        floor_seq: u64,
        keys_after: i64,
    ) -> rusqlite::Result<Self> {
        let found = connection
            .prepare_cached(
                "SELECT uuid, (SELECT max(epoch) FROM epochs WHERE epochs.channel_no = ?1),
                    EXISTS (
                        SELECT 1 FROM sender_keys k WHERE k.channel_no = ?1 AND k.kept_at > ?3)
                 FROM channels WHERE channel_no = ?1 AND floor_seq = ?2
                 AND NOT EXISTS (SELECT 1 FROM places WHERE places.channel_no = ?1)
                 AND NOT EXISTS (SELECT 1 FROM new_places new WHERE new.channel_no = ?1)",
            )?
            .query_row(params![channel_no, floor_seq, keys_after], |row| {
                let epoch = row.get::<_, Option<i64>>(1)?.unwrap_or(0);
                let (channel, epoch) = (row.get(0)?, stored_epoch(1, epoch)?);
                Ok(match row.get(2)? {
                    true => Self::Stays,
                    false => Self::Forgotten {
                        channel: Uuid::from_bytes(channel).into(),
                        epoch,
                    },
                })
            })
            .optional();
        match found {
            Err(error) if is_damage(&error) => Ok(Self::Passed),
            found => Ok(found?.unwrap_or(Self::Passed)),
        }
    }
}
