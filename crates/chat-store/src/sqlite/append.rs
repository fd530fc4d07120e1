//! One message of a batch: is it new, does it fit, where does it go.

use chat_model::{ChannelId, Epoch};
use rusqlite::{CachedStatement, Connection, params};

use super::keys::{self, KeyRules, Known};
use super::memory::{Log, Memory};
use super::places;
use super::retention::ChannelLimits;
use super::values::{epoch_value, to_position};
use crate::checksum::checksum;
use crate::next_event::next_event;
use crate::retention::EVENT_BYTES;
use crate::{Append, Appended, StoreError};

/// The moment of a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// Milliseconds since 1970.
    pub(super) now: u64,
    /// Reading of the expiry clock.
    pub(super) expiry: u64,
}

/// The open transaction of a batch.
pub(super) struct Batch<'a> {
    connection: &'a Connection,
    memory: &'a mut Memory,
    rules: &'a KeyRules,
    limits: ChannelLimits,
    moment: Moment,
    /// Channels that have more than they may.
    over: Vec<ChannelId>,
    /// Kept open for all messages: even a look-up among prepared statements shows.
    insert: CachedStatement<'a>,
    /// The last position that can be found by channel and number.
    entered: i64,
}

impl<'a> Batch<'a> {
    pub(super) fn begin(
        connection: &'a Connection,
        memory: &'a mut Memory,
        rules: &'a KeyRules,
        limits: ChannelLimits,
        moment: Moment,
    ) -> rusqlite::Result<Self> {
        let insert = connection.prepare_cached(
            "INSERT INTO log (pos, channel_no, seq, at, kept_at, event, sum, bytes_to)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?;
        Ok(Self {
            connection,
            entered: memory.last_position,
            memory,
            rules,
            limits,
            moment,
            over: Vec::new(),
            insert,
        })
    }

    /// Puts one message into the transaction. A refusal (the inner `Err`) writes nothing, so the
    /// rest of the batch is not affected by it; the outer `Err` fails the whole transaction.
    pub(super) fn append(
        &mut self,
        new: &Append,
    ) -> rusqlite::Result<Result<Appended, StoreError>> {
        let keyed = new.message.id.is_some() || new.key.is_some();
        let log = match self.memory.logs.find(new.channel) {
            None => {
                self.enter()?;
                self.memory.log(self.connection, new.channel)?
            }
            cached => cached,
        };
        let fingerprint = if keyed {
            new.message.fingerprint()
        } else {
            [0; 16]
        };
        if let (true, Some(log)) = (keyed, log) {
            match keys::find(
                self.connection,
                self.rules,
                log.channel_no,
                new,
                &fingerprint,
                self.moment.expiry,
            )? {
                Known::No => {}
                Known::Same { epoch, seq, id } => {
                    self.enter()?;
                    return Ok(Ok(Appended::Repeated {
                        event: places::event(self.connection, new.channel, log.channel_no, seq)?,
                        epoch,
                        seq,
                        id,
                    }));
                }
                Known::Other(what) => return Ok(Err(StoreError::KeyReused { what })),
            }
        }
        let Self {
            connection,
            memory,
            rules,
            limits,
            moment,
            over,
            insert,
            ..
        } = self;
        let (epoch, seq, last_at) = match log {
            Some(log) => (log.epoch, log.head + 1, log.at),
            None => (new_log_epoch(memory, moment.now), 1, 0),
        };
        let next = match next_event(new, epoch, seq, last_at, moment.now) {
            Ok(next) => next,
            Err(refused) => return Ok(Err(refused)),
        };
        if keyed && let Err(error) = keys::make_room(connection, memory, rules, new, moment.expiry)?
        {
            return Ok(Err(error));
        }
        let log = match log {
            Some(log) => log,
            None => create_log(connection, memory, new.channel, epoch)?,
        };
        let bytes = next.event.len() as u64 + EVENT_BYTES;
        let log = Log {
            head: seq,
            at: next.at,
            bytes: log.bytes + bytes,
            ..log
        };
        let position = memory.last_position + 1;
        // A tuple: its types are known, so that it is bound faster than a list of any values.
        insert.execute((
            position,
            log.channel_no,
            log.head,
            log.at,
            moment.expiry,
            next.event.as_ref(),
            checksum(new.channel, seq, &next.event),
            log.bytes,
        ))?;
        memory.last_position = position;
        memory.log_bytes += bytes;
        memory.unsaved_bytes += bytes;
        memory.logs.put(new.channel, log);
        if limits.are_exceeded(&log) {
            over.push(new.channel);
        }
        if keyed {
            keys::remember(
                connection,
                memory,
                &log,
                new,
                &fingerprint,
                next.id,
                moment.expiry,
            )?;
        }
        Ok(Ok(Appended::Stored {
            event: next.event,
            epoch,
            seq,
            id: next.id,
            position: to_position(position),
        }))
    }

    /// Makes what is stored so far found by channel and number: before anything is looked up so.
    fn enter(&mut self) -> rusqlite::Result<()> {
        if self.entered < self.memory.last_position {
            places::enter(self.connection, self.memory, self.entered)?;
            self.entered = self.memory.last_position;
        }
        Ok(())
    }

    /// Ends the batch, which must not be left out. Returns the channels that have more than they
    /// may, once for each message.
    pub(super) fn finish(mut self) -> rusqlite::Result<Vec<ChannelId>> {
        self.enter()?;
        places::settle_many(self.connection, self.memory)?;
        Ok(self.over)
    }
}

/// The epoch of a log that begins now.
///
/// Logs that begin while the clock stands still, or lies behind, share the last epoch instead of
/// pushing it ahead of the clock: a store that is put back must find that its clock has left
/// behind every epoch that was handed out after the copy was made. Only the epochs of logs that were
/// forgotten are left behind in any case: the channel may have been one of them.
fn new_log_epoch(memory: &mut Memory, now: u64) -> Epoch {
    let epoch = Epoch::after(memory.forgotten_epoch, now);
    memory.last_epoch = memory.last_epoch.max(epoch);
    memory.last_epoch
}

fn create_log(
    connection: &Connection,
    memory: &Memory,
    channel: ChannelId,
    epoch: Epoch,
) -> rusqlite::Result<Log> {
    connection
        .prepare_cached("INSERT INTO channels (uuid) VALUES (?1)")?
        .execute([channel.uuid().as_bytes()])?;
    let channel_no = connection.last_insert_rowid();
    connection
        .prepare_cached("INSERT INTO epochs (channel_no, epoch, from_seq) VALUES (?1, ?2, 1)")?
        .execute(params![channel_no, epoch_value(epoch)])?;
    connection
        .prepare_cached("UPDATE state SET last_epoch = ?1 WHERE last_epoch < ?1")?
        .execute([epoch_value(memory.last_epoch)])?;
    Ok(Log {
        channel_no,
        epoch,
        head: 0,
        floor: 0,
        at: 0,
        bytes: 0,
        floor_bytes: 0,
    })
}
