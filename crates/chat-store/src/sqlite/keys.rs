//! The ids and keys that senders chose, so that a post that comes again is not stored again.

use std::ops::Range;
use std::time::Duration;

use chat_model::Epoch;
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::memory::{Log, Memory};
use super::values::{epoch_value, stored_epoch};
use crate::expiry_clock::milliseconds;
use crate::key_shares::KeyShares;
use crate::sender_keys::key_of;
use crate::{Append, KeyMemory, ReusedKey, Share, StoreError};

/// How long it is believed which keys are too young to be forgotten, in milliseconds.
const YOUNG_FOR: u64 = 1_000;

/// [`KeyMemory`] in the database's units, and what was dropped by it.
pub(super) struct KeyRules {
    max_age: u64,
    min_age: u64,
    max_count: i64,
    pub(super) shares: KeyShares,
    /// The number of the oldest key that is too young to be forgotten, and when that was found out.
    first_young: std::cell::Cell<Option<(i64, u64)>>,
    /// Keys dropped before their time in the open transaction.
    pub(super) dropped_early: std::cell::Cell<u64>,
}

impl KeyRules {
    pub(super) fn new(memory: &KeyMemory) -> Self {
        Self {
            max_age: milliseconds(memory.max_age),
            min_age: milliseconds(memory.min_age),
            max_count: i64::try_from(memory.max_count).unwrap_or(i64::MAX),
            shares: KeyShares::new(memory),
            first_young: std::cell::Cell::new(None),
            dropped_early: std::cell::Cell::new(0),
        }
    }
}

/// What is known of a post's id and key.
pub(super) enum Known {
    No,
    /// Where it was stored; the event itself may be gone.
    Same {
        epoch: Epoch,
        seq: u64,
        id: Uuid,
    },
    Other(ReusedKey),
}

struct Remembered {
    n: i64,
    fingerprint: [u8; 16],
    id: Uuid,
    epoch: i64,
    seq: u64,
    kept_at: u64,
}

pub(super) fn find(
    connection: &Connection,
    rules: &KeyRules,
    channel_no: i64,
    new: &Append,
    fingerprint: &[u8; 16],
    expiry: u64,
) -> rusqlite::Result<Known> {
    let Some((what, key)) = key_of(new) else {
        return Ok(Known::No);
    };
    let Some(known) = look_up(connection, channel_no, &key)? else {
        return Ok(Known::No);
    };
    if known.kept_at + rules.max_age <= expiry {
        // Too old, and retention has not come by yet.
        connection
            .prepare_cached("DELETE FROM sender_keys WHERE n = ?1")?
            .execute([known.n])?;
        return Ok(Known::No);
    }
    if known.fingerprint != *fingerprint {
        return Ok(Known::Other(what));
    }
    Ok(Known::Same {
        epoch: stored_epoch(0, known.epoch)?,
        seq: known.seq,
        id: known.id,
    })
}

fn look_up(
    connection: &Connection,
    channel_no: i64,
    key: &[u8; 17],
) -> rusqlite::Result<Option<Remembered>> {
    connection
        .prepare_cached(
            "SELECT n, fingerprint, id, epoch, seq, kept_at FROM sender_keys
             WHERE channel_no = ?1 AND key = ?2",
        )?
        .query_row(params![channel_no, key], |row| {
            Ok(Remembered {
                n: row.get(0)?,
                fingerprint: row.get(1)?,
                id: Uuid::from_bytes(row.get(2)?),
                epoch: row.get(3)?,
                seq: row.get(4)?,
                kept_at: row.get(5)?,
            })
        })
        .optional()
}

/// Makes room for a post's key by forgetting the oldest, unless that is too young, or the sender or
/// the channel has its share.
pub(super) fn make_room(
    connection: &Connection,
    memory: &mut Memory,
    rules: &KeyRules,
    new: &Append,
    expiry: u64,
) -> rusqlite::Result<Result<(), StoreError>> {
    // Holes in the numbers make the counts too high, never too low.
    let remembered = memory.keys.end - memory.keys.start;
    if !rules.shares.is_roomy(unsigned(remembered)) {
        let young = memory.keys.end - first_young(connection, memory, rules, expiry)?;
        if let Err(full) = rules.shares.check(new, unsigned(young), expiry) {
            return Ok(Err(full));
        }
    }
    let mut surplus = remembered + 1 - rules.max_count;
    if surplus <= 0 {
        return Ok(Ok(()));
    }
    let first_kept = memory.keys.start + surplus;
    let (present, youngest): (i64, Option<u64>) = connection
        .prepare_cached("SELECT count(*), max(kept_at) FROM sender_keys WHERE n >= ?1 AND n < ?2")?
        .query_row([memory.keys.start, first_kept], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    // Without any, there is nothing to compare with.
    let youngest = youngest.unwrap_or(0);
    if present > 0 && youngest + rules.min_age > expiry {
        let wait = Duration::from_millis(youngest + rules.min_age - expiry);
        return Ok(Err(StoreError::KeysFull {
            share: Share::All,
            retry_after: wait.max(Duration::from_secs(1)),
        }));
    }
    surplus = forget(connection, memory, memory.keys.start..first_kept)?;
    if youngest + rules.max_age > expiry {
        let early = unsigned(surplus);
        rules.dropped_early.set(rules.dropped_early.get() + early);
    }
    Ok(Ok(()))
}

/// The number of the oldest key that is too young to be forgotten.
fn first_young(
    connection: &Connection,
    memory: &Memory,
    rules: &KeyRules,
    expiry: u64,
) -> rusqlite::Result<i64> {
    let (start, end) = (memory.keys.start, memory.keys.end);
    if let Some((first, at)) = rules.first_young.get()
        && expiry < at + YOUNG_FOR
    {
        return Ok(first.clamp(start, end));
    }
    let mut next = connection
        .prepare_cached("SELECT kept_at FROM sender_keys WHERE n >= ?1 ORDER BY n LIMIT 1")?;
    // They are numbered in the order in which they came.
    let (mut low, mut high) = (start, end);
    while low < high {
        let middle = low + (high - low) / 2;
        let kept_at: Option<u64> = next.query_row([middle], |row| row.get(0)).optional()?;
        if kept_at.is_some_and(|kept_at| kept_at + rules.min_age <= expiry) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    rules.first_young.set(Some((low, expiry)));
    Ok(low)
}

/// A count, which is never negative.
fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

/// Forgets the oldest keys, those with these numbers; returns how many there were.
pub(super) fn forget(
    connection: &Connection,
    memory: &mut Memory,
    numbers: Range<i64>,
) -> rusqlite::Result<i64> {
    let gone = connection
        .prepare_cached("DELETE FROM sender_keys WHERE n >= ?1 AND n < ?2")?
        .execute([numbers.start, numbers.end])?;
    memory.keys.start = numbers.end.min(memory.keys.end);
    Ok(i64::try_from(gone).unwrap_or(i64::MAX))
}

pub(super) fn remember(
    connection: &Connection,
    memory: &mut Memory,
    log: &Log,
    new: &Append,
    fingerprint: &[u8; 16],
    id: Uuid,
    expiry: u64,
) -> rusqlite::Result<()> {
    let Some((_, key)) = key_of(new) else {
        return Ok(());
    };
    connection
        .prepare_cached(
            "INSERT INTO sender_keys (n, channel_no, key, fingerprint, id, epoch, seq, kept_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            memory.keys.end,
            log.channel_no,
            key,
            fingerprint,
            id.as_bytes(),
            epoch_value(log.epoch),
            log.head,
            expiry
        ])?;
    memory.keys.end += 1;
    Ok(())
}
