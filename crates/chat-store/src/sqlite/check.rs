//! Looking for damage: quickly at the start, and through everything when asked.

use std::path::Path;

use chat_model::{ChannelId, Damaged};
use rusqlite::Connection;
use uuid::Uuid;

use super::folder::DATABASE;
use super::queries::{at_one_moment, page};
use super::read_only::look_at;
use super::schema::is_current;
use crate::{OpenError, PageLimit, PageRange};

/// The largest file that is looked through at the start: some tenths of a second.
const QUICK_BYTES: u64 = 64 << 20;
/// Channels whose index is compared at the start at most: a tenth of a second for each 100,000, or
/// some hundred pages to read for each 10,000.
const MOST_CHANNELS: i64 = 200_000;
/// Lines of SQLite's that are kept at most.
const MOST_LINES: usize = 100;

/// What [`check`] found.
#[derive(Debug, Default, Clone)]
pub struct Checked {
    /// Channels looked at.
    pub channels: u64,
    /// Events that are as they were stored.
    pub sound: u64,
    /// Events that are not, or are not there.
    pub damaged: u64,
    /// What SQLite says about the file itself, a hundred lines at most; empty if it is sound.
    pub database: Vec<String>,
}

impl Checked {
    /// Whether nothing is damaged.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damaged == 0 && self.database.is_empty()
    }
}

/// Reads the whole store of a folder, which services may be using, and tells `each` of every range
/// of damaged numbers, channel by channel. Blocks for as long as reading all of it takes.
///
/// # Errors
/// [`OpenError::Unusable`] if the folder holds no store, [`OpenError::BadCopy`] if it cannot be
/// opened as one, [`OpenError::NewerSchema`]. Damage is no error.
pub fn check(dir: &Path, mut each: impl FnMut(ChannelId, Damaged)) -> Result<Checked, OpenError> {
    let database = dir.join(DATABASE);
    if !database.is_file() {
        return Err(OpenError::Unusable {
            dir: dir.to_owned(),
            reason: format!("it holds no {DATABASE}; is it the right folder?"),
        });
    }
    let mut connection = look_at(&database)?;
    if !is_current(&connection) {
        return Err(OpenError::Unusable {
            dir: dir.to_owned(),
            reason:
                "it is in the format of an earlier Hark: start the service once, which brings it \
                     to the present one, then check"
                    .to_owned(),
        });
    }
    let mut found = Checked {
        database: complaints(&connection, "integrity_check"),
        ..Checked::default()
    };
    let channels = channels(&connection).unwrap_or_else(|error| {
        found.database.push(format!("table channels: {error}"));
        Vec::new()
    });
    for channel in channels {
        found.channels += 1;
        let mut after = 0;
        loop {
            let range = PageRange::After(after);
            let read = at_one_moment(&mut connection, |connection| {
                page(connection, channel, range, PageLimit::MAX)
            });
            let page = match read {
                Ok(page) => page,
                Err(error) => {
                    found.database.push(format!("channel {channel}: {error}"));
                    break;
                }
            };
            let numbers = page.damaged.iter().map(|range| range.to - range.from + 1);
            let damaged: u64 = numbers.sum();
            found.sound += page.events.len() as u64;
            found.damaged += damaged;
            page.damaged.iter().for_each(|&range| each(channel, range));
            let read = page.events.len() as u64 + damaged;
            if read == 0 {
                break;
            }
            after = after.max(page.head.first - 1) + read;
        }
    }
    Ok(found)
}

/// What a quick look at a database finds wrong with it; nothing if it is too large for one.
pub(super) fn quick_check(connection: &Connection, database: &Path) -> Vec<String> {
    let bytes = std::fs::metadata(database).map_or(0, |file| file.len());
    if bytes > QUICK_BYTES {
        return Vec::new();
    }
    complaints(connection, "quick_check")
}

/// Whether the channels are found by their names, which no quick look compares: one that is not
/// seems to be empty. `None` if there are too many of them.
pub(super) fn are_channels_found(connection: &Connection) -> rusqlite::Result<Option<bool>> {
    let last: Option<i64> =
        connection.query_row("SELECT max(channel_no) FROM channels", [], |row| row.get(0))?;
    if last.unwrap_or(0) > MOST_CHANNELS {
        return Ok(None);
    }
    let mut check = connection.prepare("PRAGMA main.integrity_check(channels)")?;
    let mut lines = check.query([])?;
    while let Some(line) = lines.next()? {
        if line.get::<_, String>(0)? != "ok" {
            return Ok(Some(false));
        }
    }
    Ok(Some(true))
}

fn channels(connection: &Connection) -> rusqlite::Result<Vec<ChannelId>> {
    connection
        .prepare("SELECT uuid FROM channels ORDER BY channel_no")?
        .query_map([], |row| Ok(Uuid::from_bytes(row.get(0)?).into()))?
        .collect()
}

fn complaints(connection: &Connection, pragma: &str) -> Vec<String> {
    let lines = || -> rusqlite::Result<Vec<String>> {
        // Without a name it would open the temporary database as well, which every later
        // transaction would begin and end.
        connection
            .prepare(&format!("PRAGMA main.{pragma}({MOST_LINES})"))?
            .query_map([], |row| row.get(0))?
            .collect()
    };
    let mut lines = lines().unwrap_or_else(|error| vec![error.to_string()]);
    lines.retain(|line| line != "ok");
    lines
}
