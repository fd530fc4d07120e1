//! Taking over what a process that is gone has left unpublished.
//!
//! It goes into the lane of this process, some at a time, and is handed to the follower like what
//! was stored here. That is done by the writer itself, because positions must reach the follower in
//! their order.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use chat_model::ChannelId;
use tokio::time::Instant;
use tokio_postgres::Row;

use super::{
    Writer,
    link::{Connected, Link},
};
use crate::{
    Position, Unpublished,
    damage::Damage,
    postgres::{
        batch::from_stored_number,
        failure::Failure,
        lane::{Lane, Owner, lane_name},
        queries::sound,
        salvage,
        steps::Step,
    },
};

/// Events and bytes that one transaction moves at most; posts wait for it.
const STEP_EVENTS: i64 = 500;
const STEP_BYTES: i64 = 4 << 20;
/// The pause between two steps while there is more to move.
const STEP_PAUSE: Duration = Duration::from_millis(20);

/// What a step found.
enum Rescued {
    /// No lane is without an owner.
    Nothing,
    Moved {
        events: Vec<Unpublished>,
        /// Where the lane is now: beyond the last event, if there were fewer than there may be.
        raised: i64,
    },
    /// This process is the one that was given up.
    Fenced,
}

impl Writer {
    /// One step, if there is a lane to empty.
    pub(super) async fn rescue(&mut self) {
        let (Link::Up(link), Some(lane)) = (&self.link, self.lane) else {
            return;
        };
        let pause = match step(link, &self.owner, lane, &self.shared.counters.damage).await {
            Ok(Rescued::Nothing) => self.connector.options.timing.lease / 5,
            Ok(Rescued::Moved { events, raised }) => {
                self.see(lane, raised);
                if let Some(last) = events.last() {
                    tracing::info!(
                        events = events.len(),
                        "taken over from a process that is gone"
                    );
                    let newest = &self.shared.counters.newest;
                    newest.fetch_max(last.position.offset(), Relaxed);
                    self.shared.follower.tell(|| events);
                }
                STEP_PAUSE
            }
            Ok(Rescued::Fenced) => {
                self.change_lane().await;
                STEP_PAUSE
            }
            // Whoever holds a lock there may not be gone after all.
            Err(Failure::Conflict(_)) => self.connector.options.timing.lease / 5,
            Err(failure) => {
                // It may have happened all the same, and the outbox may have read of it.
                let seen = self.seen.get(&lane.number).copied().unwrap_or(0);
                self.see(lane, seen.saturating_add(STEP_EVENTS));
                self.note_failure(&failure);
                self.connector.options.timing.lease / 5
            }
        };
        self.next_rescue = Instant::now() + pause;
    }
}

/// What of an orphan can be read although some of it is damaged.
struct Found {
    /// Where the orphan began when it was read.
    published_to: i64,
    rows: Vec<Row>,
    /// Whether these are moved, or only passed over: history has them.
    moves: bool,
}

/// One step; around what cannot be read.
async fn step(
    link: &Connected,
    owner: &Owner,
    lane: Lane,
    damage: &Damage,
) -> Result<Rescued, Failure> {
    let orphan = link
        .session
        .row(&link.statements.find_orphan, &[&lane.number])
        .await?;
    let Some(orphan) = orphan else {
        return Ok(Rescued::Nothing);
    };
    let orphan: i32 = orphan.get(0);
    let failure = match empty(link, owner, lane, orphan, None, damage).await {
        Err(failure) if failure.is_damage() => failure,
        rescued => return rescued,
    };
    damage.note_database(failure.reason());
    for moves in [true, false] {
        let mark = "SELECT published_to FROM lanes WHERE lane = $1";
        let mark = link.session.seldom(mark, &[&orphan]).await?;
        let published_to = mark.first().map_or(0, |row| row.get(0));
        let rows = salvage::positions(&link.session, orphan, published_to).await?;
        let found = Some(Found {
            published_to,
            rows,
            moves,
        });
        match empty(link, owner, lane, orphan, found, damage).await {
            Err(failure) if failure.is_damage() => {}
            rescued => return rescued,
        }
    }
    Err(failure)
}

/// Moves some of an orphan's events into our lane.
async fn empty(
    link: &Connected,
    owner: &Owner,
    lane: Lane,
    orphan: i32,
    found: Option<Found>,
    damage: &Damage,
) -> Result<Rescued, Failure> {
    let Connected {
        session,
        statements,
    } = link;
    let rescued = session
        .transaction(async {
            // Not for long: posts wait, and a lock means that somebody is at work there.
            session.run("SET LOCAL lock_timeout = 200").await?;
            owner.at(session, Step::Fence).await?;
            let locked = session
                .rows(&statements.lock_lanes, &[&lane.number, &orphan, owner.id()])
                .await?;
            let row_of = |number: i32| locked.iter().find(|row| row.get::<_, i32>(0) == number);
            let Some(ours) = row_of(lane.number).filter(|row| row.get(3)) else {
                return Ok(Rescued::Fenced);
            };
            let Some(theirs) = row_of(orphan).filter(|row| row.get(4)) else {
                // Its owner came back, or another has taken it over.
                return Ok(Rescued::Nothing);
            };
            session
                .execute(&statements.fence, &[&lane.number, &orphan, &STEP_EVENTS])
                .await?;
            let base: i64 = ours.get(1);
            let (their_pos, published_to): (i64, i64) = (theirs.get(1), theirs.get(2));
            let (oldest, moves) = match found {
                Some(found) if found.published_to != published_to => return Ok(Rescued::Nothing),
                Some(found) => (found.rows, found.moves),
                None => {
                    let oldest = session
                        .rows(
                            &statements.oldest_of_orphan,
                            &[&orphan, &published_to, &STEP_EVENTS, &STEP_BYTES],
                        )
                        .await?;
                    (oldest, true)
                }
            };
            owner.at(session, Step::Move).await?;
            let segments: Vec<i32> = oldest.iter().map(|row| row.get(0)).collect();
            let channels: Vec<i64> = oldest.iter().map(|row| row.get(1)).collect();
            let seqs: Vec<i64> = oldest.iter().map(|row| row.get(2)).collect();
            let places: Vec<i64> = (base + 1..).take(oldest.len()).collect();
            if moves {
                session
                    .execute(
                        &statements.move_events,
                        &[&lane.number, &segments, &channels, &seqs, &places],
                    )
                    .await?;
            }
            // Holes at the end of a lane are published as well.
            let empty_to = oldest.last().map_or(their_pos, |row| row.get(3));
            session
                .execute(&statements.note_moved, &[&orphan, &empty_to])
                .await?;
            owner.at(session, Step::CommitMove).await?;
            let moved = oldest.iter().zip(places).filter(|_| moves);
            let moved = moved.filter_map(|(row, pos)| unpublished(row, lane.number, pos, damage));
            Ok(Rescued::Moved {
                events: moved.collect(),
                raised: base.saturating_add(STEP_EVENTS),
            })
        })
        .await?;
    owner.at(session, Step::MoveCommitted).await?;
    Ok(rescued)
}

/// `None` if it has expired, or is damaged.
fn unpublished(row: &Row, lane: i32, pos: i64, damage: &Damage) -> Option<Unpublished> {
    let channel: Option<uuid::Uuid> = row.get(6);
    let channel = ChannelId::from(channel?);
    let seq = from_stored_number(row.get(2));
    Some(Unpublished {
        position: Position::new(lane_name(lane), from_stored_number(pos)),
        channel,
        event: sound(channel, seq, row.get(5), row.get(7), damage)?,
        committed_at: from_stored_number(row.get(4)),
    })
}
