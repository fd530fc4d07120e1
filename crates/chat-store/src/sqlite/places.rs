//! Where each event of a channel lies in the log.
//!
//! An index over all events gives every busy channel a page of its own to grow in, so that each
//! message of a batch changes another page: that was two thirds of what a commit costs. So what is
//! new goes into a small table of the same form, whose few pages a whole batch shares, and moves to
//! the large one a thousand at a time, sorted. What is new in a channel is always its newest.

use bytes::Bytes;
use chat_model::ChannelId;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::failures::is_corruption;
use super::memory::Memory;
use crate::checksum::is_sound;
use crate::page::Kept;

/// SQL for the number of the newest event that is kept of the row of `channels` at hand, or NULL.
macro_rules! newest_kept {
    () => {
        "coalesce(
            (SELECT max(seq) FROM new_places new WHERE new.channel_no = channels.channel_no),
            (SELECT max(seq) FROM places WHERE places.channel_no = channels.channel_no))"
    };
}
pub(super) use newest_kept;

/// Enters what was stored after a position; one statement for a batch costs a third of one for each
/// message. OR ROLLBACK spares it a journal of its own: whatever fails here fails the transaction.
pub(super) fn enter(
    connection: &Connection,
    memory: &mut Memory,
    after: i64,
) -> rusqlite::Result<()> {
    let entered = connection
        .prepare_cached(
            "INSERT OR ROLLBACK INTO new_places (channel_no, seq, pos)
             SELECT channel_no, seq, pos FROM log WHERE pos > ?1",
        )?
        .execute([after])?;
    memory.new_places += entered as u64;
    Ok(())
}

/// One event of a channel; `None` if it is no longer kept, or damaged.
pub(super) fn event(
    connection: &Connection,
    channel: ChannelId,
    channel_no: i64,
    seq: u64,
) -> rusqlite::Result<Option<Bytes>> {
    let kept = kept(connection, channel_no, seq)?;
    let sound = kept.filter(|kept| is_sound(channel, seq, &kept.event, kept.sum));
    Ok(sound.map(|kept| kept.event))
}

/// What is found under a number; `None` if nothing is, or nothing that can be read.
pub(super) fn kept(
    connection: &Connection,
    channel_no: i64,
    seq: u64,
) -> rusqlite::Result<Option<Kept>> {
    let found = connection
        .prepare_cached(
            "SELECT event, sum FROM log WHERE pos = coalesce(
                (SELECT pos FROM places WHERE channel_no = ?1 AND seq = ?2),
                (SELECT pos FROM new_places WHERE channel_no = ?1 AND seq = ?2))",
        )?
        .query_row(params![channel_no, seq], |row| Ok(read(row)))
        .optional();
    match found {
        Err(error) if is_corruption(&error) => Ok(None),
        found => Ok(found?.flatten()),
    }
}

/// An event and its checksum, in the first two columns; `None` if a damaged row has something else
/// there.
pub(super) fn read(row: &Row<'_>) -> Option<Kept> {
    let event: Vec<u8> = row.get(0).ok()?;
    Some(Kept {
        event: event.into(),
        sum: row.get(1).ok()?,
    })
}

/// Moves what is new to the rest once that pays.
pub(super) fn settle_many(connection: &Connection, memory: &mut Memory) -> rusqlite::Result<()> {
    if memory.new_places < memory.settle_at {
        return Ok(());
    }
    settle(connection, memory)
}

/// Moves all that is new to the rest.
pub(super) fn settle(connection: &Connection, memory: &mut Memory) -> rusqlite::Result<()> {
    if memory.new_places == 0 {
        return Ok(());
    }
    connection
        .prepare_cached(
            "INSERT OR ROLLBACK INTO places (channel_no, seq, pos)
             SELECT channel_no, seq, pos FROM new_places ORDER BY channel_no, seq",
        )?
        .execute([])?;
    connection
        .prepare_cached("DELETE FROM new_places")?
        .execute([])?;
    memory.new_places = 0;
    Ok(())
}

/// Forgets a channel's places up to a number.
pub(super) fn forget(
    connection: &Connection,
    memory: &mut Memory,
    channel_no: i64,
    up_to: u64,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM places WHERE channel_no = ?1 AND seq <= ?2")?
        .execute(params![channel_no, up_to])?;
    let new = connection
        .prepare_cached("DELETE FROM new_places WHERE channel_no = ?1 AND seq <= ?2")?
        .execute(params![channel_no, up_to])?;
    memory.new_places = memory.new_places.saturating_sub(new as u64);
    Ok(())
}

#[cfg(test)]
mod tests;
