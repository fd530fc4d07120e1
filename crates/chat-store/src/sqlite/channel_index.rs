//! The index by which a channel is found by its name.
//!
//! Where it is damaged a channel seems to be empty: its readers are told that it has nothing, and the
//! next post would begin its log anew. All that is in the index is in the table as well, so it can
//! be built again, if the names in the table are right. Each event's checksum covers the name of its
//! channel and tells.

use chat_model::ChannelId;
use rusqlite::Connection;
use uuid::Uuid;

use super::check::are_channels_found;
use super::failures::is_damage;
use super::places;

/// What is wrong with the index of a database of today's format, in words. Mends it where it can.
pub(super) fn look(connection: &mut Connection) -> Option<String> {
    let found = are_channels_found(connection);
    match found {
        Ok(None | Some(true)) => return None,
        Err(error) if !is_damage(&error) => {
            tracing::warn!(%error, "the index of the channels could not be looked at");
            return None;
        }
        // It is wrong, or cannot be read: both are mended by building it anew.
        Ok(Some(false)) | Err(_) => {}
    }
    match mend(connection) {
        Ok(true) => {
            tracing::error!("the index of the channels was damaged, and was built anew");
            None
        }
        Ok(false) => Some("the index of table channels".to_owned()),
        Err(error) => Some(format!("the index of table channels: {error}")),
    }
}

/// Builds the index anew if the table is right, as far as can be told. Whether all is well then.
fn mend(connection: &mut Connection) -> rusqlite::Result<bool> {
    let not_found = not_found(connection)?;
    let mut are_right = false;
    for (channel_no, channel) in not_found {
        match is_right(connection, channel_no, channel)? {
            Some(true) => are_right = true,
            Some(false) => return Ok(false),
            None => {}
        }
    }
    if !are_right {
        return Ok(false);
    }
    let transaction = connection.transaction()?;
    transaction.execute_batch("REINDEX channels")?;
    let is_mended = are_channels_found(&transaction)? == Some(true);
    if is_mended {
        transaction.commit()?;
    }
    Ok(is_mended)
}

/// The channels that the index does not lead to.
fn not_found(connection: &Connection) -> rusqlite::Result<Vec<(i64, ChannelId)>> {
    connection
        .prepare(
            "SELECT channel_no, uuid FROM channels AS c NOT INDEXED WHERE NOT EXISTS (
                SELECT 1 FROM channels AS i INDEXED BY sqlite_autoindex_channels_1
                WHERE i.uuid = c.uuid AND i.channel_no = c.channel_no)",
        )?
        .query_map([], |row| {
            Ok((row.get(0)?, Uuid::from_bytes(row.get(1)?).into()))
        })?
        .collect()
}

/// Whether the newest event is one of a channel of this name; `None` if none is kept.
fn is_right(
    connection: &Connection,
    channel_no: i64,
    channel: ChannelId,
) -> rusqlite::Result<Option<bool>> {
    let newest: Option<u64> = connection
        .prepare_cached(concat!(
            "SELECT ",
            places::newest_kept!(),
            " FROM channels NOT INDEXED WHERE channel_no = ?1"
        ))?
        .query_row([channel_no], |row| row.get(0))?;
    let Some(newest) = newest else {
        return Ok(None);
    };
    let event = places::event(connection, channel, channel_no, newest)?;
    Ok(Some(event.is_some()))
}
