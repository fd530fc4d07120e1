//! What readers ask. Each question is one statement, which sees one moment of the database; where a
//! damaged page is in its way, it is asked again in words that read around it.
//!
//! No answer shows what lies at or below a log's floor: its rows go after the floor was raised.

use std::time::Duration;

use bytes::Bytes;
use chat_model::{ChannelId, Damaged, Head};
use tokio_postgres::Row;
use uuid::Uuid;

use super::epochs::Epochs;
use super::failure::Failure;
use super::numbers::{from_stored_number, lane_name, lane_number, to_stored_number};
use super::session::{Params, Session};
use crate::checksum::is_sound;
use crate::damage::Damage;
use crate::page::{Kept, Reading, bound};
use crate::{PageLimit, PageRange, Position, StoredPage, Unpublished};

/// Something that is asked of a connection for reading.
pub(super) trait Question: Send + Sync + 'static {
    type Answer: Send;
    /// Whether it may be slow, and there may be many.
    const MAY_BE_LONG: bool = false;

    fn ask(
        &self,
        session: &Session,
        damage: &Damage,
    ) -> impl Future<Output = Result<Self::Answer, Failure>> + Send;
}

/// A statement, and the same around what is damaged.
type Around = [&'static str; 2];

/// All that a connection is often asked.
pub(super) const QUESTIONS: [&str; 5] = [
    PAGE_AFTER[0],
    PAGE_BEFORE[0],
    HEADS[0],
    UNPUBLISHED[0],
    OLDEST_UNPUBLISHED[0],
];

/// Events of a page, as an array, so that the head comes once: `$3` of at most `$4` bytes together,
/// or one.
macro_rules! page {
    ($source:literal, $order:literal) => {
        concat!(
            "SELECT s.incarnations, c.head, c.floor, c.epochs, c.epoch_starts,
                page.seqs, page.events, page.sums, page.found
            FROM state s LEFT JOIN channels c ON c.uuid = $1
            LEFT JOIN LATERAL (
                SELECT array_agg(seq ORDER BY place) AS seqs, array_agg(event ORDER BY place) AS events,
                    array_agg(sum ORDER BY place) AS sums, max(found) AS found
                FROM (
                    SELECT seq, event, first.sum, count(*) OVER () AS found,
                        row_number() OVER (ORDER BY seq ", $order, ") AS place,
                        sum(octet_length(event)) OVER (ORDER BY seq ", $order, ") AS bytes
                    FROM (SELECT seq, event, log.sum FROM ", $source, "
                          ORDER BY seq ", $order, " LIMIT $3) first) counted
                 WHERE bytes <= $4 OR place = 1) page ON true
            WHERE s.one"
        )
    };
}

const PAGE_AFTER: Around = [
    page!(
        "log WHERE channel_no = c.no AND seq > c.floor AND seq > $2",
        ""
    ),
    page!(
        "readable_events(1, c.no, greatest($2, c.floor) + 1, least(greatest(least($2, c.head), c.floor) + $3, c.head), 1) log",
        ""
    ),
];
const PAGE_BEFORE: Around = [
    page!(
        "log WHERE channel_no = c.no AND seq > c.floor AND seq < $2",
        "DESC"
    ),
    page!(
        "readable_events(1, c.no, greatest(least($2::bigint - 1, c.head) - $3, c.floor) + 1, least($2::bigint - 1, c.head), 1) log",
        "DESC"
    ),
];

macro_rules! heads {
    ($channel:literal) => {
        concat!(
            "
            SELECT s.incarnations, c.head, c.floor, c.epochs, c.epoch_starts
            FROM state s CROSS JOIN unnest($1::uuid[]) WITH ORDINALITY asked (uuid, place)
            LEFT JOIN ",
            $channel,
            " WHERE s.one ORDER BY asked.place"
        )
    };
}

const HEADS: Around = [
    heads!("channels c ON c.uuid = asked.uuid"),
    heads!("LATERAL readable_channel(asked.uuid) c ON true"),
];

/// The channel is looked up for each event: a join would be planned for a tenth of the log.
macro_rules! unpublished {
    ($source:literal, $channel:literal) => {
        concat!(
            "
            SELECT pos, at, event, ",
            $channel,
            " AS uuid, seq, counted.sum
            FROM (SELECT *, row_number() OVER (ORDER BY pos) AS place,
                    sum(octet_length(event)) OVER (ORDER BY pos) AS bytes
                  FROM (SELECT pos, at, event, channel_no, seq, log.sum FROM ",
            $source,
            "
                        ORDER BY pos LIMIT $3) first) counted
            WHERE bytes <= $4 OR place = 1
            ORDER BY pos"
        )
    };
}

const UNPUBLISHED: Around = [
    unpublished!(
        "log WHERE lane = $1 AND pos > $2",
        "(SELECT uuid FROM channels c WHERE c.no = counted.channel_no AND c.floor < counted.seq)"
    ),
    unpublished!(
        "readable_after($1, $2, $3) log",
        "readable_owner(counted.channel_no, counted.seq)"
    ),
];

/// Milliseconds by the server's own clock, which stamps what is stored: those of the processes may
/// differ. Every lane has its own watermark; that of this process may be newer than the one saved.
macro_rules! oldest_unpublished {
    ($source:literal) => {
        concat!("
            SELECT (1000 * max(abs(extract(epoch FROM clock_timestamp() - (
                SELECT coalesce(log.stored, to_timestamp(log.at / 1000.0)) FROM ", $source, "
                ORDER BY log.pos LIMIT 1)))))::bigint
            FROM lanes CROSS JOIN LATERAL (
                SELECT CASE lanes.lane WHEN $1 THEN $2::bigint ELSE lanes.published_to END AS pos) mark
            WHERE lanes.pos > lanes.published_to")
    };
}

const OLDEST_UNPUBLISHED: Around = [
    oldest_unpublished!("log WHERE log.lane = lanes.lane AND log.pos > mark.pos"),
    oldest_unpublished!("readable_after(lanes.lane, mark.pos, 1) log"),
];

async fn around(
    session: &Session,
    damage: &Damage,
    [sql, careful]: Around,
    params: Params<'_>,
) -> Result<Vec<Row>, Failure> {
    match session.rows(sql, params).await {
        Err(failure) if failure.is_damage() => {
            damage.note_database(&failure.reason());
            session.rows(careful, params).await
        }
        rows => rows,
    }
}

/// A page of a channel.
pub(super) struct AskPage(
    pub(super) ChannelId,
    pub(super) PageRange,
    pub(super) PageLimit,
);

impl Question for AskPage {
    type Answer = StoredPage;
    const MAY_BE_LONG: bool = true;

    async fn ask(&self, session: &Session, damage: &Damage) -> Result<StoredPage, Failure> {
        let &Self(channel, range, limit) = self;
        let (bound, descending) = bound(range);
        let question = if descending { PAGE_BEFORE } else { PAGE_AFTER };
        let bound = to_stored_number(bound);
        let (events, bytes) = limits(limit);
        let channel_uuid = channel.uuid();
        let params: Params<'_> = &[&channel_uuid, &bound, &events, &bytes];
        let rows = around(session, damage, question, params).await?;
        let Some(row) = rows.first() else {
            return Err(Failure::Lost("the table state is empty".to_owned()));
        };
        // No rows are arrays that are NULL.
        let seqs: Option<Vec<i64>> = row.get("seqs");
        let events: Option<Vec<&[u8]>> = row.get("events");
        let sums: Option<Vec<Option<i32>>> = row.get("sums");
        let found = (seqs.unwrap_or_default().into_iter())
            .zip(events.unwrap_or_default())
            .zip(sums.unwrap_or_default());
        let head = head(channel, row).ok_or_else(|| Failure::damaged("the channel's row"))?;
        let mut reading = Reading::new(head, range, limit);
        let mut count = 0;
        for ((seq, event), sum) in found {
            count += 1;
            let event = Bytes::copy_from_slice(event);
            reading.take(from_stored_number(seq), Kept { event, sum });
        }
        // Where its size has cut the page off, the rest is another page's; else what is missing was
        // lost.
        if row.get::<_, Option<i64>>("found").unwrap_or(0) == count {
            while reading.next().is_some() {
                reading.lacks();
            }
        }
        let page = reading.finish();
        damage.note(channel, &page.damaged);
        Ok(page)
    }
}

/// The heads of channels, without those that are damaged.
pub(super) struct AskHeads(pub(super) Vec<ChannelId>);

impl Question for AskHeads {
    type Answer = Vec<Head>;

    async fn ask(&self, session: &Session, damage: &Damage) -> Result<Vec<Head>, Failure> {
        let uuids: Vec<Uuid> = self.0.iter().map(|channel| channel.uuid()).collect();
        let rows = around(session, damage, HEADS, &[&uuids]).await?;
        let heads = self.0.iter().zip(&rows);
        let heads: Vec<_> = heads
            .filter_map(|(&channel, row)| head(channel, row))
            .collect();
        if heads.len() < self.0.len() {
            damage.note_database("the rows of some channels cannot be read");
        }
        Ok(heads)
    }
}

/// The outbox after a position.
pub(super) struct AskUnpublished(pub(super) Position, pub(super) PageLimit);

impl Question for AskUnpublished {
    type Answer = Vec<Unpublished>;

    async fn ask(&self, session: &Session, damage: &Damage) -> Result<Vec<Unpublished>, Failure> {
        let (events, bytes) = limits(self.1);
        let lane = lane_number(self.0.lane());
        let mut from = to_stored_number(self.0.offset());
        loop {
            let params: Params<'_> = &[&lane, &from, &events, &bytes];
            let rows = around(session, damage, UNPUBLISHED, params).await?;
            let Some(last) = rows.last() else {
                return Ok(Vec::new());
            };
            from = last.get("pos");
            let page = rows.iter().filter_map(|row| entry(row, lane, damage));
            let page: Vec<_> = page.collect();
            // All that was found has expired and is about to be removed: the end may lie further on.
            if !page.is_empty() {
                return Ok(page);
            }
        }
    }
}

/// How long the oldest waits. What this process has published, and where.
pub(super) struct AskOldestUnpublished(pub(super) Option<Position>);

impl Question for AskOldestUnpublished {
    type Answer = Option<Duration>;

    async fn ask(&self, session: &Session, damage: &Damage) -> Result<Option<Duration>, Failure> {
        let lane = self.0.map_or(0, |mark| lane_number(mark.lane()));
        let mark = self.0.map_or(0, |mark| to_stored_number(mark.offset()));
        let rows = around(session, damage, OLDEST_UNPUBLISHED, &[&lane, &mark]).await?;
        let oldest: Option<i64> = rows.first().and_then(|row| row.get(0));
        Ok(oldest.map(from_stored_number).map(Duration::from_millis))
    }
}

/// An event of a lane; `None` if it has expired, or is not the one that was stored.
pub(super) fn entry(row: &Row, lane: i32, damage: &Damage) -> Option<Unpublished> {
    let channel = ChannelId::from(row.get::<_, Option<Uuid>>("uuid")?);
    let seq = from_stored_number(row.get("seq"));
    let event: &[u8] = row.get("event");
    if !is_sound(channel, seq, event, row.get("sum")) {
        damage.note(channel, &[Damaged { from: seq, to: seq }]);
        return None;
    }
    Some(Unpublished {
        position: Position::new(lane_name(lane), from_stored_number(row.get("pos"))),
        channel,
        event: Bytes::copy_from_slice(event),
        committed_at: from_stored_number(row.get("at")),
    })
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
    let (head, floor): (Option<i64>, Option<i64>) = (row.get("head"), row.get("floor"));
    let (Some(head), Some(floor)) = (head, floor) else {
        return Some(Head::none(channel));
    };
    if !(0..=head).contains(&floor) {
        return None;
    }
    let mut epochs = Epochs::from_row(row);
    let head = from_stored_number(head);
    epochs.complete(&row.get::<_, Vec<i64>>("incarnations"), head);
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
