//! What readers ask, each question answered from one moment of the database.

use bytes::Bytes;
use chat_model::{ChannelId, EpochStart, Head};
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use super::{
    append::{from_position, to_position},
    memory::stored_epoch,
    places::newest_kept,
};
use crate::{PageLimit, PageRange, Position, StoredPage, Unpublished};

/// Runs a question inside a read transaction, so that all of its parts see one moment.
pub(super) fn at_one_moment<T>(
    connection: &mut Connection,
    question: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let transaction = connection.transaction()?;
    let answer = question(&transaction)?;
    transaction.commit()?;
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
) -> rusqlite::Result<Vec<Head>> {
    channels
        .iter()
        .map(|&channel| {
            let found = find(connection, channel)?;
            Ok(found.map_or_else(|| Head::none(channel), |(_, head)| head))
        })
        .collect()
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
        });
    };
    let (bound, descending) = match range {
        PageRange::After(seq) => (seq, false),
        PageRange::Before(seq) => (seq, true),
        PageRange::Newest => (u64::MAX, true),
    };
    let bound = i64::try_from(bound).unwrap_or(i64::MAX);
    // What is new in a channel comes after all the rest of it.
    let parts = if descending {
        [
            "SELECT event FROM new_places place CROSS JOIN log USING (pos)
             WHERE place.channel_no = ?1 AND place.seq < ?2 ORDER BY place.seq DESC LIMIT ?3",
            "SELECT event FROM places place CROSS JOIN log USING (pos)
             WHERE place.channel_no = ?1 AND place.seq < ?2 ORDER BY place.seq DESC LIMIT ?3",
        ]
    } else {
        [
            "SELECT event FROM places place CROSS JOIN log USING (pos)
             WHERE place.channel_no = ?1 AND place.seq > ?2 ORDER BY place.seq LIMIT ?3",
            "SELECT event FROM new_places place CROSS JOIN log USING (pos)
             WHERE place.channel_no = ?1 AND place.seq > ?2 ORDER BY place.seq LIMIT ?3",
        ]
    };
    let mut events = Vec::new();
    let mut bytes = 0;
    'page: for sql in parts {
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query(params![channel_no, bound, limit.events - events.len()])?;
        while let Some(row) = rows.next()? {
            let event = event(row, 0)?;
            bytes += event.len();
            if bytes > limit.bytes && !events.is_empty() {
                break 'page;
            }
            events.push(event);
        }
    }
    if descending {
        events.reverse();
    }
    Ok(StoredPage { head, events })
}

pub(super) fn unpublished(
    connection: &Connection,
    after: Position,
    limit: PageLimit,
) -> rusqlite::Result<Vec<Unpublished>> {
    let mut statement = connection.prepare_cached(
        "SELECT pos, uuid, at, event FROM log CROSS JOIN channels USING (channel_no)
         WHERE pos > ?1 ORDER BY pos LIMIT ?2",
    )?;
    let mut rows = statement.query(params![from_position(after), limit.events])?;
    let mut page = Vec::new();
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let event = event(row, 3)?;
        bytes += event.len();
        if bytes > limit.bytes && !page.is_empty() {
            break;
        }
        page.push(Unpublished {
            position: to_position(row.get(0)?),
            channel: Uuid::from_bytes(row.get(1)?).into(),
            event,
            committed_at: row.get(2)?,
        });
    }
    Ok(page)
}

fn event(row: &Row<'_>, column: usize) -> rusqlite::Result<Bytes> {
    let bytes: Vec<u8> = row.get(column)?;
    Ok(bytes.into())
}
