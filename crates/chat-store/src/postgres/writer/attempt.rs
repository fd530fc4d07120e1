//! One attempt at a batch, from its first lock to its COMMIT.

use std::collections::BTreeSet;

use bytes::Bytes;
use chat_model::ChannelId;
use tokio::time::Instant;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{Post, link::Connected};
use crate::{
    Appended, StoreError,
    checksum::is_sound,
    expiry_clock::{ExpiryClock, milliseconds, now},
    key_shares::KeyShares,
    postgres::{
        batch::{Batch, KeyRoom, Known, Log, Moment, from_stored_number, to_stored_number},
        epochs::{Epochs, from_stored},
        failure::Failure,
        keeper::STEP_EVENTS,
        lane::{Lane, Owner, lane_name},
        options::PostgresOptions,
        statements::{BEGIN, COMMIT},
        steps::{Step, pipelined},
    },
    sender_keys::key_of,
};

/// A batch that is committed, or may be.
pub(super) struct Done {
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

/// A batch whose COMMIT was sent and not answered.
pub(super) struct Undecided {
    pub(super) lane: Lane,
    pub(super) done: Done,
    /// One of its events.
    pub(super) channel_no: i64,
    pub(super) seq: i64,
    pub(super) event: Bytes,
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
    Undecided(Failure, Box<Undecided>),
}

impl From<Failure> for Setback {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// One attempt at a batch.
pub(super) struct Attempt<'a> {
    pub(super) link: &'a Connected,
    pub(super) owner: &'a Owner,
    pub(super) lane: Lane,
    pub(super) published_to: i64,
    pub(super) options: &'a PostgresOptions,
    pub(super) expiry: &'a ExpiryClock,
    pub(super) shares: &'a KeyShares,
    pub(super) posts: &'a [Post],
    pub(super) started: Instant,
}

/// How often rows are made for channels that have none.
const TRIES: usize = 3;

impl Attempt<'_> {
    pub(super) async fn run(&self) -> Result<Done, Setback> {
        let session = &self.link.session;
        let moment = Moment {
            now: now(&self.options.clock),
            expiry: self.expiry.reading(),
        };
        let channels: BTreeSet<Uuid> = self.posts.iter().map(|p| p.new.channel.uuid()).collect();
        let channels: Vec<Uuid> = channels.into_iter().collect();
        let mut begun = self.begin(moment, &channels, &[]).await;
        // Of a channel that was there before, the row may go in between.
        for _ in 0..TRIES {
            let Ok((batch, _)) = &begun else { break };
            if batch.logs.len() == channels.len() {
                break;
            }
            let missing = channels
                .iter()
                .filter(|uuid| !batch.logs.contains_key(uuid));
            let missing: Vec<Uuid> = missing.copied().collect();
            // Not within the same transaction: it holds locks, and would wait for whoever is
            // adding the same channels and waits for those.
            session.roll_back().await?;
            begun = self.begin(moment, &channels, &missing).await;
        }
        let (mut batch, base) = match begun {
            Ok(begun) => begun,
            Err(setback) => {
                if !matches!(setback, Setback::Failed(Failure::Lost(_))) {
                    session.roll_back().await?;
                }
                return Err(setback);
            }
        };
        let outcomes = (self.posts.iter().zip(base + 1..))
            .map(|(post, pos)| batch.append(&post.new, pos))
            .collect();
        let keys = &batch.key_room;
        let done = Done {
            last_pos: base + to_stored_number(self.posts.len() as u64),
            is_written: !batch.events.event.is_empty(),
            outcomes,
            committed_at: moment.now,
            expiry: moment.expiry,
            too_long: self.too_long(&batch),
            keys: (!batch.keys.key.is_empty()).then_some(keys.count + batch.keys.key.len() as u64),
            keys_dropped_early: batch.dropped_early,
            started: self.started,
        };
        if !done.is_written {
            session.roll_back().await?;
            return Ok(done);
        }
        self.commit(&batch, done).await
    }

    /// The first round trip: everything is locked, and what must be known is read.
    async fn begin(
        &self,
        moment: Moment,
        channels: &[Uuid],
        missing: &[Uuid],
    ) -> Result<(Batch<'_>, i64), Setback> {
        let Connected {
            session,
            statements,
        } = self.link;
        let count = to_stored_number(self.posts.len() as u64);
        let reading = to_stored_number(moment.expiry);
        let lease = *self.owner.lease_milliseconds() as f64;
        let lane = self.lane.number;
        let (asked_channels, asked_keys): (Vec<Uuid>, Vec<[u8; 17]>) = self
            .posts
            .iter()
            .filter_map(|post| Some((post.new.channel.uuid(), key_of(&post.new)?.1)))
            .unzip();
        let asked_keys: Vec<&[u8]> = asked_keys.iter().map(<[u8; 17]>::as_slice).collect();
        let new_keys = to_stored_number(asked_keys.len() as u64);
        let most_keys = to_stored_number(self.options.keys.max_count);
        let old = moment
            .expiry
            .checked_sub(milliseconds(self.options.keys.min_age));
        // Before the first is old, all are young: a reading is never negative.
        let old = old.map_or(-1, to_stored_number);
        let (begun, advanced, added, locked, known, room) = pipelined!(
            async {
                self.owner.at(session, Step::Begin).await?;
                session.run(BEGIN).await
            },
            async {
                self.owner.at(session, Step::AdvanceLane).await?;
                let id = self.owner.id();
                session
                    .row(
                        &statements.advance_lane,
                        &[&lane, id, &count, &self.published_to, &reading, &lease],
                    )
                    .await
            },
            async {
                if missing.is_empty() {
                    return Ok(0);
                }
                session.execute(&statements.add_channels, &[&missing]).await
            },
            async {
                self.owner.at(session, Step::LockChannels).await?;
                session.rows(&statements.lock_channels, &[&channels]).await
            },
            async {
                if asked_keys.is_empty() {
                    return Ok(Vec::new());
                }
                self.owner.at(session, Step::FindKeys).await?;
                session
                    .rows(&statements.find_keys, &[&asked_channels, &asked_keys])
                    .await
            },
            async {
                if asked_keys.is_empty() {
                    return Ok(None);
                }
                session
                    .row(&statements.key_room, &[&new_keys, &most_keys, &old])
                    .await
            },
        );
        begun?;
        let Some(advanced) = advanced? else {
            return Err(Setback::Fenced);
        };
        added?;
        let number = lane_name(lane);
        let mut batch = Batch::new(moment, &self.options.keys, self.shares, number);
        batch.segment = advanced.get(1);
        batch.incarnations = advanced.get(2);
        batch.forgotten = from_stored(advanced.get(3));
        let logs: Option<_> = locked?.iter().map(log_of).collect();
        batch.logs = logs.ok_or_else(|| Failure::damaged("a channel's row"))?;
        batch.known = known?.iter().filter_map(known_of).collect();
        if let Some(row) = room? {
            batch.key_room = KeyRoom {
                count: from_stored_number(row.get(0)),
                // No rows are an array that is NULL.
                oldest: row.get::<_, Option<Vec<i64>>>(1).unwrap_or_default(),
                young: from_stored_number(row.get(2)),
            };
        }
        Ok((batch, advanced.get(0)))
    }

    /// The second round trip: everything is written and committed.
    async fn commit(&self, batch: &Batch<'_>, done: Done) -> Result<Done, Setback> {
        let Connected {
            session,
            statements,
        } = self.link;
        let (events, keys, logs) = (&batch.events, &batch.keys, batch.changed_logs());
        let bytes: Vec<&[u8]> = events.event.iter().map(AsRef::as_ref).collect();
        let key: Vec<&[u8]> = keys.key.iter().map(<[u8; 17]>::as_slice).collect();
        let fingerprint: Vec<&[u8]> = keys.fingerprint.iter().map(<[u8; 16]>::as_slice).collect();
        let too_old: Vec<i64> = batch.too_old.iter().copied().collect();
        let oldest = to_stored_number(batch.oldest_to_go);
        let reading = to_stored_number(batch.moment.expiry);
        let empty = batch.empty_logs();
        let (inserted, updated, dropped, forgot, remembered, committed) = pipelined!(
            async {
                self.owner.at(session, Step::InsertEvents).await?;
                session
                    .execute(
                        &statements.insert_events,
                        &[
                            &events.channel_no,
                            &events.seq,
                            &events.pos,
                            &events.at,
                            &bytes,
                            &events.sum,
                            &batch.segment,
                            &self.lane.number,
                            &events.upto,
                        ],
                    )
                    .await
            },
            async {
                self.owner.at(session, Step::UpdateChannels).await?;
                session
                    .execute(
                        &statements.update_channels,
                        &[
                            &logs.no,
                            &logs.head,
                            &logs.at,
                            &logs.epoch,
                            &logs.epochs,
                            &logs.starts,
                            &logs.sent,
                        ],
                    )
                    .await
            },
            async {
                if empty.is_empty() {
                    return Ok(0);
                }
                session.execute(&statements.drop_channels, &[&empty]).await
            },
            async {
                if too_old.is_empty() && oldest == 0 {
                    return Ok(0);
                }
                session
                    .execute(&statements.forget_keys, &[&too_old, &oldest])
                    .await
            },
            async {
                if key.is_empty() {
                    return Ok(0);
                }
                self.owner.at(session, Step::RememberKeys).await?;
                session
                    .execute(
                        &statements.remember_keys,
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
                    )
                    .await
            },
            async {
                self.owner.at(session, Step::Commit).await?;
                session.run(COMMIT).await?;
                self.owner.at(session, Step::Committed).await
            },
        );
        let is_full = matches!(&inserted, Err(failure) if failure.is_damage());
        let written = inserted
            .and(updated)
            .and(dropped)
            .and(forgot)
            .and(remembered);
        match (written, committed) {
            (Ok(_), Ok(())) => Ok(done),
            (Err(Failure::Lost(reason)), _) | (Ok(_), Err(Failure::Lost(reason))) => {
                let undecided = Undecided {
                    lane: self.lane,
                    done,
                    channel_no: events.channel_no[0],
                    seq: events.seq[0],
                    event: events.event[0].clone(),
                };
                Err(Setback::Undecided(
                    Failure::Lost(reason),
                    Box::new(undecided),
                ))
            }
            // The first failure is the reason of all later ones. In a transaction that has failed
            // the server takes nothing but its end, so that `COMMIT` stops before it has ended it.
            (Err(failure), _) | (Ok(_), Err(failure)) => {
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
        let retention = &self.options.retention;
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
    let (head, floor): (i64, i64) = (row.get(2), row.get(4));
    if !(0..=head).contains(&floor) {
        return None;
    }
    let epochs = Epochs::from_row(&row.get::<_, Vec<i64>>(5), &row.get::<_, Vec<i64>>(6));
    let number = |column| from_stored_number(row.get(column));
    let mut log = Log::new(row.get(1), number(2), number(3), number(4), epochs);
    (log.sent, log.gone) = (number(7), number(8));
    Some((row.get(0), log))
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
