//! Where each log begins after events were removed.

use std::collections::HashMap;

use chat_model::ChannelId;
use rusqlite::{Connection, params};

use crate::sqlite::memory::{Memory, save_size};
use crate::sqlite::places;

/// The newest event of a channel among those removed.
pub(super) struct Floor {
    pub(super) channel: ChannelId,
    pub(super) seq: u64,
    pub(super) pos: i64,
    /// When it was stored, if that can be read.
    pub(super) at: Option<u64>,
    /// Bytes of the channel's events up to and with it, if that can be read.
    pub(super) bytes: Option<u64>,
}

/// Writes down where each log now begins, which is also where it goes on if nothing of it is left,
/// how large all of them are, and the highest position, which must not be handed out again.
pub(super) fn raise_floors(
    connection: &Connection,
    memory: &mut Memory,
    floors: &HashMap<i64, Floor>,
    expiry: u64,
) -> rusqlite::Result<()> {
    // A row that was left where it is may be of a log of before, even of one whose channel was
    // forgotten and whose number is another's now: then nothing leads to it.
    let mut raise = connection.prepare_cached(
        "UPDATE channels SET floor_seq = ?2,
            floor_at = coalesce(?3, floor_at), floor_bytes = coalesce(?4, floor_bytes)
         WHERE channel_no = ?1 AND floor_seq < ?2 AND ?5 = coalesce(
            (SELECT pos FROM places WHERE channel_no = ?1 AND seq = ?2),
            (SELECT pos FROM new_places WHERE channel_no = ?1 AND seq = ?2))",
    )?;
    let mut note_if_empty = connection.prepare_cached(
        "INSERT INTO empty_channels (n, channel_no, floor_seq, since)
         SELECT ?1, ?2, ?3, ?4 WHERE NOT EXISTS (SELECT 1 FROM places WHERE channel_no = ?2)
            AND NOT EXISTS (SELECT 1 FROM new_places WHERE channel_no = ?2)",
    )?;
    for (channel_no, floor) in floors {
        let Floor { seq, pos, .. } = floor;
        if raise.execute(params![channel_no, seq, floor.at, floor.bytes, pos])? == 0 {
            continue;
        }
        places::forget(connection, memory, *channel_no, *seq)?;
        memory.logs.forget(floor.channel);
        let noted = params![memory.next_empty, channel_no, seq, expiry];
        if note_if_empty.execute(noted)? > 0 {
            memory.next_empty += 1;
            memory.empty_entries += 1;
        }
    }
    save_size(connection, memory)
}
