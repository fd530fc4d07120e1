//! Giving unused pages back to the disk.

use rusqlite::Connection;

/// Unused pages that stay in the file for new events, besides a tenth of it.
const SPARE_PAGES: u64 = 1_024;
/// Unused pages that one step gives back to the disk.
const STEP_PAGES: u64 = 256;

/// Gives some unused pages back to the disk; whether there are more.
pub(in crate::sqlite) fn vacuum_step(connection: &Connection) -> rusqlite::Result<bool> {
    let spare = pragma(connection, "page_count")? / 10 + SPARE_PAGES;
    let surplus = pragma(connection, "freelist_count")?.saturating_sub(spare);
    if surplus == 0 {
        return Ok(false);
    }
    let pages = surplus.min(STEP_PAGES);
    let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(surplus > pages)
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<u64> {
    connection
        .prepare_cached(&format!("PRAGMA {name}"))?
        .query_row([], |row| row.get(0))
}
