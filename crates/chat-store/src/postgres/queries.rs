//! What readers ask. Each question is one statement, which sees one moment of the database.
//!
//! No answer shows what lies at or below a log's floor: its rows go after the floor was raised.

use std::time::Duration;

use bytes::Bytes;
use chat_model::{ChannelId, Damaged, Head};
use tokio_postgres::{Row, Statement};
use uuid::Uuid;

use super::{
    batch::{from_stored_number, to_stored_number},
    epochs::Epochs,
    failure::Failure,
    lane::lane_number,
    reader::Reader,
    salvage,
    session::Session,
};
use crate::{
    PageLimit, PageRange, Position, StoredPage, Unpublished,
    checksum::is_sound,
    damage::Damage,
    page::{Kept, Reading, bound},
};

/// Events of a page, as an array, so that the head comes once: `$3` of at most `$4` bytes together,
/// or one.
macro_rules! page {
    ($range:literal, $order:literal) => {
        concat!(
            "SELECT s.incarnations, c.head, c.floor, c.epochs, c.epoch_starts,
                page.seqs, page.events, page.sums, page.found
            FROM state s LEFT JOIN channels c ON c.uuid = $1
            LEFT JOIN LATERAL (
                SELECT array_agg(seq ORDER BY seq ",
            $order,
            ") AS seqs, array_agg(event ORDER BY seq ",
            $order,
            ") AS events, array_agg(checksum ORDER BY seq ",
            $order,
            ") AS sums, max(found) AS found
                FROM (
                    SELECT seq, event, checksum, count(*) OVER () AS found, row_number() OVER (ORDER BY seq ",
            $order,
            ") AS place,
                        sum(octet_length(event)) OVER (ORDER BY seq ",
            $order,
            ") AS bytes
                    FROM (SELECT seq, event, log.sum AS checksum FROM log
                          WHERE channel_no = c.no AND seq > c.floor AND ",
            $range,
            "
                          ORDER BY seq ",
            $order,
            " LIMIT $3) first) counted
                 WHERE bytes <= $4 OR place = 1) page ON true
            WHERE s.one"
        )
    };
}

const PAGE_AFTER: &str = page!("seq > $2", "");
const PAGE_BEFORE: &str = page!("seq < $2", "DESC");

const HEADS: &str = "
    SELECT s.incarnations, c.head, c.floor, c.epochs, c.epoch_starts
    FROM state s CROSS JOIN unnest($1::uuid[]) WITH ORDINALITY asked (uuid, place)
    LEFT JOIN channels c ON c.uuid = asked.uuid
    WHERE s.one ORDER BY asked.place";

/// The channel is looked up for each event: a join would be planned for a tenth of the log.
const UNPUBLISHED: &str = "
    SELECT pos, at, event,
        (SELECT uuid FROM channels c WHERE c.no = counted.channel_no AND c.floor < counted.seq),
        seq, checksum
    FROM (SELECT *, row_number() OVER (ORDER BY pos) AS place,
            sum(octet_length(event)) OVER (ORDER BY pos) AS bytes
          FROM (SELECT pos, at, event, channel_no, seq, log.sum AS checksum FROM log
                WHERE lane = $1 AND pos > $2 ORDER BY pos LIMIT $3) first) counted
    WHERE bytes <= $4 OR place = 1
    ORDER BY pos";

/// Milliseconds by the server's own clock, which stamps what is stored: those of the processes may
/// differ. Every lane has its own watermark; that of this process may be newer than the one saved.
const OLDEST_UNPUBLISHED: &str = "
    SELECT (1000 * max(abs(extract(epoch FROM clock_timestamp() - (
        SELECT coalesce(log.stored, to_timestamp(log.at / 1000.0)) FROM log
        WHERE log.lane = lanes.lane
            AND log.pos > CASE lanes.lane WHEN $1 THEN $2 ELSE lanes.published_to END
        ORDER BY log.pos LIMIT 1)))))::bigint
    FROM lanes WHERE pos > published_to";

/// The questions, prepared for one connection.
pub(super) struct Questions {
    page_after: Statement,
    page_before: Statement,
    heads: Statement,
    unpublished: Statement,
    oldest_unpublished: Statement,
}

impl Questions {
    pub(super) async fn prepare(session: &Session) -> Result<Self, Failure> {
        let (page_after, page_before, heads, unpublished, oldest_unpublished) = tokio::try_join!(
            session.prepare(PAGE_AFTER),
            session.prepare(PAGE_BEFORE),
            session.prepare(HEADS),
            session.prepare(UNPUBLISHED),
            session.prepare(OLDEST_UNPUBLISHED),
        )?;
        Ok(Self {
            page_after,
            page_before,
            heads,
            unpublished,
            oldest_unpublished,
        })
    }
}

/// Which page is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) channel: ChannelId,
    pub(super) range: PageRange,
    pub(super) limit: PageLimit,
}

pub(super) async fn page(
    reader: &Reader,
    wanted: Wanted,
    damage: &Damage,
) -> Result<StoredPage, Failure> {
    match whole_page(reader, wanted).await {
        Err(failure) if failure.is_damage() => {
            damage.note_database(failure.reason());
            salvage::page(reader, wanted).await
        }
        page => page,
    }
}

async fn whole_page(reader: &Reader, wanted: Wanted) -> Result<StoredPage, Failure> {
    let Wanted {
        channel,
        range,
        limit,
    } = wanted;
    let questions = &reader.questions;
    let (bound, descending) = bound(range);
    let question = if descending {
        &questions.page_before
    } else {
        &questions.page_after
    };
    let (events, bytes) = limits(limit);
    let row = reader
        .session
        .row(
            question,
            &[&channel.uuid(), &to_stored_number(bound), &events, &bytes],
        )
        .await?;
    let Some(row) = row else {
        return Err(Failure::Lost("the table state is empty".to_owned()));
    };
    // No rows are arrays that are NULL.
    let seqs: Option<Vec<i64>> = row.get(5);
    let events: Option<Vec<&[u8]>> = row.get(6);
    let sums: Option<Vec<Option<i32>>> = row.get(7);
    let found = (seqs.unwrap_or_default().into_iter())
        .zip(events.unwrap_or_default())
        .zip(sums.unwrap_or_default());
    let head = head(channel, &row);
    let head = head.ok_or_else(|| Failure::damaged("the channel's row"))?;
    let mut reading = Reading::new(head, range, limit);
    let mut count = 0;
    for ((seq, event), sum) in found {
        count += 1;
        let event = Bytes::copy_from_slice(event);
        reading.take(from_stored_number(seq), Kept { event, sum });
    }
    // Where its size has cut the page off, the rest is another page's; else what is missing was
    // lost.
    if row.get::<_, Option<i64>>(8).unwrap_or(0) == count {
        while reading.next().is_some() {
            reading.lacks();
        }
    }
    Ok(reading.finish())
}

/// Those of damaged channels are left out.
pub(super) async fn heads(
    reader: &Reader,
    channels: &[ChannelId],
    damage: &Damage,
) -> Result<Vec<Head>, Failure> {
    let heads = match heads_of(reader, channels).await {
        Err(failure) if failure.is_damage() => {
            damage.note_database(failure.reason());
            salvage::heads(reader, channels).await?
        }
        heads => heads?,
    };
    if heads.len() < channels.len() {
        damage.note_database("the rows of some channels cannot be read");
    }
    Ok(heads)
}

/// Without those whose rows make no sense.
pub(super) async fn heads_of(
    reader: &Reader,
    channels: &[ChannelId],
) -> Result<Vec<Head>, Failure> {
    let uuids: Vec<Uuid> = channels.iter().map(|channel| channel.uuid()).collect();
    let rows = reader
        .session
        .rows(&reader.questions.heads, &[&uuids])
        .await?;
    let heads = channels.iter().zip(&rows);
    let heads = heads.filter_map(|(&channel, row)| head(channel, row));
    Ok(heads.collect())
}

pub(super) async fn unpublished(
    reader: &Reader,
    after: Position,
    limit: PageLimit,
    damage: &Damage,
) -> Result<Vec<Unpublished>, Failure> {
    let (events, bytes) = limits(limit);
    let lane = lane_number(after.lane());
    let mut from = to_stored_number(after.offset());
    loop {
        let question = &reader.questions.unpublished;
        let rows = reader
            .session
            .rows(question, &[&lane, &from, &events, &bytes])
            .await;
        let rows = match rows {
            Err(failure) if failure.is_damage() => {
                damage.note_database(failure.reason());
                let after = Position::new(after.lane(), from_stored_number(from));
                return salvage::unpublished(reader, after, damage).await;
            }
            rows => rows?,
        };
        let Some(last) = rows.last() else {
            return Ok(Vec::new());
        };
        from = last.get(0);
        let page: Vec<_> = rows
            .iter()
            .filter_map(|row| entry(row, after.lane(), damage))
            .collect();
        // All that was found has expired and is about to be removed: the end may lie further on.
        if !page.is_empty() {
            return Ok(page);
        }
    }
}

fn entry(row: &Row, lane: u32, damage: &Damage) -> Option<Unpublished> {
    let channel: Option<Uuid> = row.get(3);
    let channel = channel?.into();
    let seq = from_stored_number(row.get(4));
    Some(Unpublished {
        position: Position::new(lane, from_stored_number(row.get(0))),
        channel,
        event: sound(channel, seq, row.get(2), row.get(5), damage)?,
        committed_at: from_stored_number(row.get(1)),
    })
}

/// The event, if it is the one that was stored.
pub(super) fn sound(
    channel: ChannelId,
    seq: u64,
    event: &[u8],
    sum: Option<i32>,
    damage: &Damage,
) -> Option<Bytes> {
    if is_sound(channel, seq, event, sum) {
        return Some(Bytes::copy_from_slice(event));
    }
    damage.note(channel, &[Damaged { from: seq, to: seq }]);
    None
}

/// `ours` is what this process has published, and where.
pub(super) async fn oldest_unpublished(
    reader: &Reader,
    ours: Option<Position>,
) -> Result<Option<Duration>, Failure> {
    let lane = ours.map_or(0, |mark| lane_number(mark.lane()));
    let mark = ours.map_or(0, |mark| to_stored_number(mark.offset()));
    let question = &reader.questions.oldest_unpublished;
    let row = match reader.session.row(question, &[&lane, &mark]).await {
        Err(failure) if failure.is_damage() => {
            return salvage::oldest_unpublished(&reader.session, (lane, mark)).await;
        }
        row => row?,
    };
    let oldest: Option<i64> = row.and_then(|row| row.get(0));
    Ok(oldest.map(from_stored_number).map(Duration::from_millis))
}

fn limits(limit: PageLimit) -> (i64, i64) {
    let limit = limit.clamped();
    (
        to_stored_number(limit.events as u64),
        to_stored_number(limit.bytes as u64),
    )
}

/// A channel without a row, or without an event yet, has no log. `None` if the row makes no sense.
fn head(channel: ChannelId, row: &Row) -> Option<Head> {
    let (Some(head), Some(floor)) = (row.get::<_, Option<i64>>(1), row.get::<_, Option<i64>>(2))
    else {
        return Some(Head::none(channel));
    };
    if !(0..=head).contains(&floor) {
        return None;
    }
    let mut epochs = Epochs::from_row(&row.get::<_, Vec<i64>>(3), &row.get::<_, Vec<i64>>(4));
    let head = from_stored_number(head);
    epochs.complete(&row.get::<_, Vec<i64>>(0), head);
    let Some(epoch) = epochs.current() else {
        return Some(Head::none(channel));
    };
    Some(Head {
        channel,
        epoch,
        head,
        first: from_stored_number(floor) + 1,
        epochs: epochs.list,
    })
}
