//! One attempt at a batch, from its first lock to its COMMIT.

use std::collections::BTreeSet;

use bytes::Bytes;
use chat_model::ChannelId;
use tokio::time::Instant;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{Post, Writer};
use crate::checksum::is_sound;
use crate::expiry_clock::{milliseconds, now};
use crate::postgres::batch::{Batch, KeyRoom, Known, Log, Moment};
use crate::postgres::epochs::Epochs;
use crate::postgres::failure::Failure;
use crate::postgres::keeper::STEP_EVENTS;
use crate::postgres::numbers::{from_stored, from_stored_number, lane_name, to_stored_number};
use crate::postgres::session::{Session, pipelined};
use crate::postgres::statements::{
    BEGIN, BEGIN_BATCH, COMMIT, DROP_CHANNELS, FIND_KEYS, FORGET_KEYS, INSERT_EVENTS, KEY_ROOM,
    REMEMBER_KEYS, UPDATE_CHANNELS,
};
use crate::sender_keys::key_of;
use crate::{Appended, StoreError};

/// A batch that is committed, or may be.
pub(super) struct Done {
    pub(super) lane: i32,
    /// Where its transaction brings the lane, if it happens.
    pub(super) last_pos: i64,
    /// False: it had nothing to store and was rolled back. The lane is where it was, and whether
    /// the store can write is not known by it.
    pub(super) is_written: bool,
    pub(super) outcomes: Vec<Result<Appended, StoreError>>,
    pub(super) committed_at: u64,
    /// Reading of the expiry clock.
    pub(super) expiry: u64,
    /// Channels that keep more than they should.
    pub(super) too_long: Vec<i64>,
    pub(super) keys: Option<u64>,
    pub(super) keys_dropped_early: u64,
    pub(super) started: Instant,
}

/// Why a batch was not committed, or perhaps was.
pub(super) enum Setback {
    /// The lane is another's now. Nothing was stored.
    Fenced,
    /// Nothing can be added to this segment: the page where it would go is damaged. Nothing was
    /// stored.
    Full(i32),
    /// Nothing was stored.
    Failed(Failure),
    /// The connection was lost when COMMIT was sent.
    Undecided(String, Box<Done>),
}

impl From<Failure> for Setback {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Writer {
    pub(super) async fn attempt(
        &self,
        session: &Session,
        posts: &[Post],
        started: Instant,
    ) -> Result<Done, Setback> {
        let Some(expiry) = self.shared.expiry.get() else {
            return Err(Failure::Lost("the store has no clock".to_owned()).into());
        };
        let moment = Moment {
            now: now(&self.connector.options.clock),
            expiry: expiry.reading(),
        };
        let (mut batch, base) = match self.begin(session, posts, moment).await {
            Ok(begun) => begun,
            Err(setback) => {
                if !matches!(setback, Setback::Failed(Failure::Lost(_))) {
                    session.roll_back().await?;
                }
                return Err(setback);
            }
        };
        let outcomes = (posts.iter().zip(base + 1..))
            .map(|(post, pos)| batch.append(&post.new, pos))
            .collect();
        let keys = &batch.key_room;
        let done = Done {
            lane: self.lane,
            last_pos: base + to_stored_number(posts.len() as u64),
            is_written: !batch.events.event.is_empty(),
            outcomes,
            committed_at: moment.now,
            expiry: moment.expiry,
            too_long: self.too_long(&batch),
            keys: (!batch.keys.key.is_empty()).then_some(keys.count + batch.keys.key.len() as u64),
            keys_dropped_early: batch.dropped_early,
            started,
        };
        if !done.is_written {
            session.roll_back().await?;
            return Ok(done);
        }
        self.commit(session, &batch, done).await
    }

    /// The first round trip: everything is locked, and what must be known is read.
    async fn begin(
        &self,
        session: &Session,
        posts: &[Post],
        moment: Moment,
    ) -> Result<(Batch<'_>, i64), Setback> {
        let rules = &self.connector.options.keys;
        let channels: BTreeSet<Uuid> = posts.iter().map(|p| p.new.channel.uuid()).collect();
        let channels: Vec<Uuid> = channels.into_iter().collect();
        let keyed = posts.iter().filter_map(|post| {
            let key = key_of(&post.new)?.1.to_vec();
            Some((post.new.channel.uuid(), key))
        });
        let (asked_channels, asked_keys): (Vec<Uuid>, Vec<Vec<u8>>) = keyed.unzip();
        let is_keyed = !asked_keys.is_empty();
        let count = to_stored_number(posts.len() as u64);
        let new_keys = to_stored_number(asked_keys.len() as u64);
        let most_keys = to_stored_number(rules.max_count);
        let reading = to_stored_number(moment.expiry);
        // Before the first is old, all are young: a reading is never negative.
        let old = moment.expiry.checked_sub(milliseconds(rules.min_age));
        let old = old.map_or(-1, to_stored_number);
        let (us, lease, mark) = (&self.us, &self.lease, self.watermark());
        let (begun, locked, known, room) = pipelined!(
            session.run(BEGIN),
            session.rows(
                BEGIN_BATCH,
                &[&self.lane, us, &count, &mark, &reading, lease, &channels],
            ),
            session.rows_if(is_keyed, FIND_KEYS, &[&asked_channels, &asked_keys]),
            session.rows_if(is_keyed, KEY_ROOM, &[&new_keys, &most_keys, &old]),
        );
        begun?;
        let locked = locked?;
        let Some(first) = locked.first() else {
            return Err(Setback::Fenced);
        };
        if locked.len() < channels.len() {
            // Retention has just forgotten one that was there before.
            return Err(Failure::Conflict("a channel is gone".to_owned()).into());
        }
        let mut batch = Batch::new(moment, rules, &self.shares, lane_name(self.lane));
        batch.segment = first.get("current_segment");
        batch.incarnations = first.get("incarnations");
        batch.forgotten = from_stored(first.get("forgotten"));
        batch.logs = locked.iter().filter_map(log_of).collect();
        batch.known = known?.iter().filter_map(known_of).collect();
        if let Some(row) = room?.first() {
            batch.key_room = KeyRoom {
                count: from_stored_number(row.get(0)),
                // No rows are an array that is NULL.
                oldest: row.get::<_, Option<Vec<i64>>>(1).unwrap_or_default(),
                young: from_stored_number(row.get(2)),
            };
        }
        Ok((batch, first.get("base")))
    }

    /// The second round trip: everything is written and committed.
    async fn commit(
        &self,
        session: &Session,
        batch: &Batch<'_>,
        done: Done,
    ) -> Result<Done, Setback> {
        let (events, keys, logs) = (&batch.events, &batch.keys, batch.changed_logs());
        let bytes: Vec<&[u8]> = events.event.iter().map(AsRef::as_ref).collect();
        let key: Vec<&[u8]> = keys.key.iter().map(<[u8; 17]>::as_slice).collect();
        let fingerprint: Vec<&[u8]> = keys.fingerprint.iter().map(<[u8; 16]>::as_slice).collect();
        let too_old: Vec<i64> = batch.too_old.iter().copied().collect();
        let oldest = to_stored_number(batch.oldest_to_go);
        let reading = to_stored_number(batch.moment.expiry);
        let empty = batch.empty_logs();
        let (inserted, updated, dropped, forgot, remembered, committed) = pipelined!(
            session.rows(
                INSERT_EVENTS,
                &[
                    &events.channel_no,
                    &events.seq,
                    &events.pos,
                    &events.at,
                    &bytes,
                    &events.sum,
                    &batch.segment,
                    &self.lane,
                    &events.upto,
                ],
            ),
            session.rows(
                UPDATE_CHANNELS,
                &[
                    &logs.no,
                    &logs.head,
                    &logs.at,
                    &logs.epoch,
                    &logs.epochs,
                    &logs.starts,
                    &logs.sent,
                ],
            ),
            session.rows_if(!empty.is_empty(), DROP_CHANNELS, &[&empty]),
            session.rows_if(
                !too_old.is_empty() || oldest > 0,
                FORGET_KEYS,
                &[&too_old, &oldest],
            ),
            session.rows_if(
                !key.is_empty(),
                REMEMBER_KEYS,
                &[
                    &keys.channel_no,
                    &key,
                    &fingerprint,
                    &keys.id,
                    &keys.epoch,
                    &keys.seq,
                    &reading,
                    &batch.segment,
                ],
            ),
            session.run(COMMIT),
        );
        let is_full = matches!(&inserted, Err(failure) if failure.is_damage());
        let written = inserted
            .and(updated)
            .and(dropped)
            .and(forgot)
            .and(remembered);
        // The first failure is the reason of all later ones.
        match written.map(drop).and(committed) {
            Ok(()) => Ok(done),
            Err(Failure::Lost(reason)) => Err(Setback::Undecided(reason, Box::new(done))),
            Err(failure) => {
                // In a transaction that has failed the server takes nothing but its end, so that
                // `COMMIT` stops before it has ended it.
                session.roll_back().await?;
                if is_full {
                    return Err(Setback::Full(batch.segment));
                }
                Err(failure.into())
            }
        }
    }

    /// Trimming starts a little above the limit, so that a busy channel is not trimmed for every
    /// single event, and is asked for once for each step that is due.
    fn too_long(&self, batch: &Batch<'_>) -> Vec<i64> {
        let retention = &self.connector.options.retention;
        let events = retention.max_per_channel;
        let bytes = retention.max_bytes_per_channel;
        batch.longer_than(
            events + (events / 10).min(STEP_EVENTS),
            bytes.saturating_add(bytes / 10),
        )
    }
}

/// `None` if it makes no sense: its numbers would be given out again.
fn log_of(row: &Row) -> Option<(Uuid, Log)> {
    let number = |column| row.get::<_, i64>(column);
    if !(0..=number("head")).contains(&number("floor")) {
        return None;
    }
    let log = Log {
        no: number("no"),
        head: from_stored_number(number("head")),
        at: from_stored_number(number("at")),
        floor: from_stored_number(number("floor")),
        epochs: Epochs::from_row(row),
        sent: from_stored_number(number("sent")),
        gone: from_stored_number(number("gone")),
        changed: false,
        new_epochs: false,
    };
    Some((row.get("uuid"), log))
}

/// One whose bytes are not of the right length was not written by Hark.
fn known_of(row: &Row) -> Option<((Uuid, [u8; 17]), Known)> {
    let key: [u8; 17] = row.get::<_, &[u8]>(1).try_into().ok()?;
    let (uuid, seq) = (row.get(0), from_stored_number(row.get(6)));
    // One that is damaged is as good as expired.
    let event = (row.get::<_, Option<&[u8]>>(8))
        .filter(|event| is_sound(ChannelId::from(uuid), seq, event, row.get(9)));
    let known = Known {
        n: Some(row.get(2)),
        fingerprint: row.get::<_, &[u8]>(3).try_into().ok()?,
        id: row.get(4),
        epoch: row.get(5),
        seq,
        kept_at: from_stored_number(row.get(7)),
        event: event.map(Bytes::copy_from_slice),
    };
    Some(((uuid, key), known))
}
