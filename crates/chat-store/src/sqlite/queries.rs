//! What readers ask, each question answered from one moment of the database.

use chat_model::{ChannelId, Damaged, EpochStart, Head};
use rusqlite::{Connection, OptionalExtension, Rows, params};
use uuid::Uuid;

use super::failures::{is_corruption, is_damage};
use super::places::{self, newest_kept};
use super::values::{from_position, stored_epoch, to_position};
use crate::checksum::is_sound;
use crate::damage::Damage;
use crate::page::{Kept, Reading, bound};
use crate::{PageLimit, PageRange, Position, StoredPage, Unpublished};

/// SQL for what the outbox needs of an event.
macro_rules! outbox_rows {
    () => {
        "SELECT event, sum, pos, seq, uuid, at FROM log CROSS JOIN channels USING (channel_no)"
    };
}

/// Runs a question inside a read transaction, so that all of its parts see one moment.
pub(super) fn at_one_moment<T>(
    connection: &mut Connection,
    question: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let transaction = connection.transaction()?;
    let answer = question(&transaction)?;
    // Not COMMIT, which fails once a damaged page was met.
    transaction.rollback()?;
    Ok(answer)
}

/// A channel's number and head.
fn find(connection: &Connection, channel: ChannelId) -> rusqlite::Result<Option<(i64, Head)>> {
    let found: Option<(i64, u64, Option<u64>)> = connection
        .prepare_cached(concat!(
            "SELECT channel_no, floor_seq, ",
            newest_kept!(),
            " FROM channels WHERE uuid = ?1"
        ))?
        .query_row([channel.uuid().as_bytes()], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    let Some((channel_no, floor, newest)) = found else {
        return Ok(None);
    };
    let epochs = connection
        .prepare_cached("SELECT epoch, from_seq FROM epochs WHERE channel_no = ?1 ORDER BY epoch")?
        .query_map([channel_no], |row| {
            Ok(EpochStart {
                epoch: stored_epoch(0, row.get(0)?)?,
                from: row.get(1)?,
            })
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let head = Head {
        channel,
        epoch: epochs
            .last()
            .map_or(Head::none(channel).epoch, |last| last.epoch),
        head: newest.unwrap_or(floor),
        first: floor + 1,
        epochs,
    };
    Ok(Some((channel_no, head)))
}

pub(super) fn heads(
    connection: &Connection,
    channels: &[ChannelId],
    damage: &Damage,
) -> rusqlite::Result<Vec<Head>> {
    let mut heads = Vec::with_capacity(channels.len());
    for &channel in channels {
        match find(connection, channel) {
            Ok(Some((_, head))) => heads.push(head),
            Ok(None) => heads.push(Head::none(channel)),
            Err(error) if is_damage(&error) => {
                damage.note_database(&format!("the entry of channel {channel}: {error}"));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(heads)
}

pub(super) fn page(
    connection: &Connection,
    channel: ChannelId,
    range: PageRange,
    limit: PageLimit,
) -> rusqlite::Result<StoredPage> {
    let Some((channel_no, head)) = find(connection, channel)? else {
        return Ok(StoredPage {
            head: Head::none(channel),
            events: Vec::new(),
            damaged: Vec::new(),
        });
    };
    let mut reading = Reading::new(head, range, limit);
    let found = read_rows(connection, channel_no, range, &mut reading);
    if let Err(error) = found
        && !is_corruption(&error)
    {
        return Err(error);
    }
    // What is left is not where it should be: one by one, so that what can be read is.
    while let Some(seq) = reading.next() {
        match places::kept(connection, channel_no, seq)? {
            Some(kept) => reading.take(seq, kept),
            None => reading.lacks(),
        }
    }
    Ok(reading.finish())
}

/// Reads the rows of a page that are there.
fn read_rows(
    connection: &Connection,
    channel_no: i64,
    range: PageRange,
    reading: &mut Reading,
) -> rusqlite::Result<()> {
    let (bound, descending) = bound(range);
    let bound = i64::try_from(bound).unwrap_or(i64::MAX);
    // What is new in a channel comes after all the rest of it.
    let parts = if descending {
        [
            "SELECT event, sum, place.seq FROM new_places place CROSS JOIN log USING (pos)
             WHERE place.channel_no = ?1 AND place.seq < ?2 ORDER BY place.seq DESC",
            "SELECT event, sum, place.seq FROM places place CROSS JOIN log USING (pos)
             WHERE place.channel_no = ?1 AND place.seq < ?2 ORDER BY place.seq DESC",
        ]
    } else {
        [
            "SELECT event, sum, place.seq FROM places place CROSS JOIN log USING (pos)
             WHERE place.channel_no = ?1 AND place.seq > ?2 ORDER BY place.seq",
            "SELECT event, sum, place.seq FROM new_places place CROSS JOIN log USING (pos)
             WHERE place.channel_no = ?1 AND place.seq > ?2 ORDER BY place.seq",
        ]
    };
    for sql in parts {
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query(params![channel_no, bound])?;
        while reading.next().is_some()
            && let Some(row) = rows.next()?
        {
            // One that cannot be read is left out, and found to be missing.
            if let Some(kept) = places::read(row) {
                reading.take(row.get(2)?, kept);
            }
        }
    }
    Ok(())
}

/// The positions that the outbox may ask for end at `newest`.
pub(super) fn unpublished(
    connection: &Connection,
    after: Position,
    newest: i64,
    limit: PageLimit,
    damage: &Damage,
) -> rusqlite::Result<Vec<Unpublished>> {
    let mut page = OutboxPage {
        limit,
        bytes: 0,
        last: from_position(after),
        events: Vec::new(),
        damage,
    };
    let mut statement =
        connection.prepare_cached(concat!(outbox_rows!(), " WHERE pos > ?1 ORDER BY pos"))?;
    let mut one = None;
    loop {
        let read = statement
            .query([page.last])
            .and_then(|mut rows| page.take_rows(&mut rows));
        match read {
            Ok(()) => return Ok(page.events),
            Err(error) if !is_corruption(&error) => return Err(error),
            Err(error) => damage.note_database(&format!("table log: {error}")),
        }
        // A page of the table is lost: whatever can be read is found position by position.
        let one = match &mut one {
            Some(one) => one,
            none => {
                none.insert(connection.prepare_cached(concat!(outbox_rows!(), " WHERE pos = ?1"))?)
            }
        };
        let mut readable = false;
        while !readable && page.last < newest && !page.is_full() {
            page.last += 1;
            let read = one
                .query([page.last])
                .and_then(|mut rows| page.take_rows(&mut rows));
            readable = match read {
                Ok(()) => true,
                Err(error) if is_corruption(&error) => false,
                Err(error) => return Err(error),
            };
        }
        if !readable {
            return Ok(page.events);
        }
    }
}

/// Some events for the outbox, while they are read.
struct OutboxPage<'a> {
    limit: PageLimit,
    bytes: usize,
    /// The last position that was looked at.
    last: i64,
    events: Vec<Unpublished>,
    damage: &'a Damage,
}

impl OutboxPage<'_> {
    fn is_full(&self) -> bool {
        self.events.len() >= self.limit.events || self.bytes > self.limit.bytes
    }

    /// Takes rows of [`outbox_rows`] until there is no room for more.
    fn take_rows(&mut self, rows: &mut Rows<'_>) -> rusqlite::Result<()> {
        while !self.is_full()
            && let Some(row) = rows.next()?
        {
            let pos = row.get(2)?;
            let (Ok(seq), Ok(uuid)) = (row.get(3), row.get(4)) else {
                self.damage
                    .note_database(&format!("table log: position {pos} cannot be read"));
                self.last = pos;
                continue;
            };
            let channel = ChannelId::from(Uuid::from_bytes(uuid));
            let kept =
                places::read(row).filter(|kept| is_sound(channel, seq, &kept.event, kept.sum));
            let Some(Kept { event, .. }) = kept else {
                self.damage.note(channel, &[Damaged { from: seq, to: seq }]);
                self.last = pos;
                continue;
            };
            self.bytes += event.len();
            if self.bytes > self.limit.bytes && !self.events.is_empty() {
                return Ok(());
            }
            self.last = pos;
            self.events.push(Unpublished {
                position: to_position(pos),
                channel,
                event,
                // Of the event itself, which is sound.
                committed_at: row.get(5).unwrap_or_default(),
            });
        }
        Ok(())
    }
}
