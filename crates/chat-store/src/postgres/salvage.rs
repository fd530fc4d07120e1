//! Reading around what the server itself refuses to read: a page of a table or of an index that is
//! damaged fails every statement that meets it.
//!
//! What was asked for is asked again by segments and by halves, until what is left out is as little
//! as can be told apart. That takes many statements, which see more than one moment: events never
//! change, and what expires in between is looked up again at the end.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use chat_model::{ChannelId, Head, Seq};
use tokio_postgres::{Row, Statement};
use uuid::Uuid;

use super::{
    batch::{from_stored_number, to_stored_number},
    failure::Failure,
    lane::lane_number,
    queries::{Wanted, heads_of, sound},
    reader::Reader,
    session::Session,
};
use crate::{
    Position, StoredPage, Unpublished,
    damage::Damage,
    page::{Kept, Reading, bound},
};

/// Numbers or positions that are looked through one by one, and events that are kept of one look.
const WINDOW: i64 = 64;

const EVENTS: &str = "
    SELECT seq, event, sum FROM log
    WHERE segment = $1 AND channel_no = $2 AND seq BETWEEN $3 AND $4 ORDER BY seq LIMIT $5";

/// The columns are those of the statement by which a rescue finds what it moves, and the age.
const POSITIONS: &str = "
    SELECT segment, channel_no, seq, pos, at, event,
        (SELECT uuid FROM channels c WHERE c.no = log.channel_no AND c.floor < log.seq), log.sum,
        (1000 * abs(extract(epoch FROM
            clock_timestamp() - coalesce(log.stored, to_timestamp(log.at / 1000.0)))))::bigint
    FROM log
    WHERE segment = $1 AND lane = $2::bigint::integer AND pos BETWEEN $3 AND $4
    ORDER BY pos LIMIT $5";

/// The heads of those channels whose rows can be read.
pub(super) async fn heads(reader: &Reader, channels: &[ChannelId]) -> Result<Vec<Head>, Failure> {
    let mut heads = Vec::with_capacity(channels.len());
    let mut todo = vec![channels];
    while let Some(some) = todo.pop() {
        match heads_of(reader, some).await {
            Ok(found) => heads.extend(found),
            Err(failure) if failure.is_damage() => {
                if some.len() > 1 {
                    let (first, rest) = some.split_at(some.len() / 2);
                    todo.extend([rest, first]);
                }
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(heads)
}

/// As much of a page as one look goes through. Fails if it is the channel's own row that is damaged.
pub(super) async fn page(reader: &Reader, wanted: Wanted) -> Result<StoredPage, Failure> {
    let session = &reader.session;
    let Wanted {
        channel,
        range,
        limit,
    } = wanted;
    let mut head = head_of(reader, channel).await?;
    let Some(first) = Reading::new(head.clone(), range, limit).next() else {
        return Ok(Reading::new(head, range, limit).finish());
    };
    let (_, descending) = bound(range);
    let numbers = WINDOW.unsigned_abs() - 1;
    let window = if descending {
        head.first.max(first.saturating_sub(numbers))..=first
    } else {
        first..=head.head.min(first.saturating_add(numbers))
    };
    let number = "SELECT no FROM channels WHERE uuid = $1";
    let number = session.seldom(number, &[&channel.uuid()]).await?;
    let number: i64 = number.first().map_or(0, |row| row.get(0));
    let statement = session.prepare(EVENTS).await?;
    let mut found: BTreeMap<Seq, Kept> = BTreeMap::new();
    for segment in segments(session).await? {
        let sieve = Sieve {
            session,
            statement: &statement,
            segment,
            of: number,
            number: 0,
            grain: 1,
        };
        let range = (
            to_stored_number(*window.start()),
            to_stored_number(*window.end()),
        );
        for row in sieve.sift(range).await?.0 {
            let event = Bytes::copy_from_slice(row.get(1));
            let sum = row.get(2);
            found.insert(from_stored_number(row.get(0)), Kept { event, sum });
        }
    }
    // What has expired since then is not damaged.
    head.first = head.first.max(head_of(reader, channel).await?.first);
    let mut reading = Reading::new(head, range, limit);
    while let Some(seq) = reading.next().filter(|seq| window.contains(seq)) {
        match found.remove(&seq) {
            Some(kept) => reading.take(seq, kept),
            None => reading.lacks(),
        }
    }
    Ok(reading.finish())
}

async fn head_of(reader: &Reader, channel: ChannelId) -> Result<Head, Failure> {
    let heads = heads_of(reader, &[channel]).await?;
    let head = heads.into_iter().next();
    head.ok_or_else(|| Failure::damaged("the channel's row"))
}

/// The next events of a lane that can be read.
pub(super) async fn unpublished(
    reader: &Reader,
    mut after: Position,
    damage: &Damage,
) -> Result<Vec<Unpublished>, Failure> {
    loop {
        let lane = lane_number(after.lane());
        let rows = positions(&reader.session, lane, to_stored_number(after.offset())).await?;
        let Some(last) = rows.last() else {
            return Ok(Vec::new());
        };
        let name = after.lane();
        after = Position::new(name, from_stored_number(last.get(3)));
        let events = rows.iter().filter_map(|row| {
            let channel: Option<Uuid> = row.get(6);
            let channel = ChannelId::from(channel?);
            let seq = from_stored_number(row.get(2));
            Some(Unpublished {
                position: Position::new(name, from_stored_number(row.get(3))),
                channel,
                event: sound(channel, seq, row.get(5), row.get(7), damage)?,
                committed_at: from_stored_number(row.get(4)),
            })
        });
        let events: Vec<_> = events.collect();
        // All of them may have expired.
        if !events.is_empty() {
            return Ok(events);
        }
    }
}

/// The age of the oldest event that can be read and is not known to be published.
pub(super) async fn oldest_unpublished(
    session: &Session,
    ours: (i32, i64),
) -> Result<Option<Duration>, Failure> {
    let lanes = "SELECT lane, CASE lane WHEN $1 THEN $2::bigint ELSE published_to END FROM lanes
        WHERE pos > published_to";
    let mut oldest = None;
    for lane in session.seldom(lanes, &[&ours.0, &ours.1]).await? {
        let rows = positions(session, lane.get(0), lane.get(1)).await?;
        let age = rows.first().map(|row| from_stored_number(row.get(8)));
        oldest = oldest.max(age.map(Duration::from_millis));
    }
    Ok(oldest)
}

/// Some rows of a lane after a position, ascending; none only if there are none up to its end. See
/// [`POSITIONS`] for the columns.
pub(super) async fn positions(
    session: &Session,
    lane: i32,
    after: i64,
) -> Result<Vec<Row>, Failure> {
    let end = "SELECT pos FROM lanes WHERE lane = $1";
    let end = session.seldom(end, &[&lane]).await?;
    let end: i64 = end.first().map_or(0, |row| row.get(0));
    let statement = session.prepare(POSITIONS).await?;
    let segments = segments(session).await?;
    let (mut from, mut width) = (after + 1, WINDOW);
    while from <= end {
        let mut to = end.min(from.saturating_add(width - 1));
        let mut found = Vec::new();
        for &segment in &segments {
            let sieve = Sieve {
                session,
                statement: &statement,
                segment,
                of: i64::from(lane),
                number: 3,
                // Where much is lost at once, less is told apart: history has it.
                grain: width / WINDOW,
            };
            let (rows, reached) = sieve.sift((from, to)).await?;
            to = to.min(reached);
            found.extend(rows);
        }
        found.retain(|row| row.get::<_, i64>(3) <= to);
        if !found.is_empty() {
            found.sort_by_key(|row| row.get::<_, i64>(3));
            return Ok(found);
        }
        from = to + 1;
        width = width.saturating_mul(2);
    }
    Ok(Vec::new())
}

async fn segments(session: &Session) -> Result<Vec<i32>, Failure> {
    let rows = session.seldom("SELECT n FROM segments ORDER BY n", &[]);
    Ok(rows.await?.iter().map(|row| row.get(0)).collect())
}

/// A question about a range of numbers in one segment.
struct Sieve<'a> {
    session: &'a Session,
    statement: &'a Statement,
    segment: i32,
    /// The channel or lane.
    of: i64,
    /// The column of the number.
    number: usize,
    /// How many numbers are given up together.
    grain: i64,
}

impl Sieve<'_> {
    /// What can be read of a range, up to about [`WINDOW`] rows; and up to where that is all.
    async fn sift(&self, (from, to): (i64, i64)) -> Result<(Vec<Row>, i64), Failure> {
        let mut found = Vec::new();
        let mut todo = vec![(from, to)];
        while let Some((from, to)) = todo.pop() {
            let answer = self
                .session
                .rows(
                    self.statement,
                    &[&self.segment, &self.of, &from, &to, &WINDOW],
                )
                .await;
            match answer {
                Ok(rows) => {
                    let most = WINDOW.unsigned_abs();
                    let cut_at = rows.last().filter(|_| rows.len() as u64 >= most);
                    let reached = cut_at.map_or(to, |last| last.get(self.number));
                    found.extend(rows);
                    if found.len() as u64 >= most {
                        return Ok((found, reached));
                    }
                }
                Err(failure) if failure.is_damage() => {
                    if to - from >= self.grain {
                        let middle = from + (to - from) / 2;
                        todo.extend([(middle + 1, to), (from, middle)]);
                    }
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok((found, to))
    }
}
