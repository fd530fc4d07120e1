//! Taking over what a process that is gone has left unpublished.
//!
//! It goes into the lane of this process, some at a time, and is handed to the follower like what
//! was stored here. That is done by the writer itself, because positions must reach the follower in
//! their order.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Row;

use super::{Lost, Writer};
use crate::postgres::failure::Failure;
use crate::postgres::queries::entry;
use crate::postgres::session::{Params, Session};
use crate::postgres::statements::RESCUE;

/// Events and bytes that one transaction moves at most; posts wait for it.
const STEP_EVENTS: i64 = 500;
const STEP_BYTES: i64 = 4 << 20;
/// The pause between two steps while there is more to move.
const STEP_PAUSE: Duration = Duration::from_millis(20);

impl Writer {
    /// One step, if there is a lane to empty.
    pub(super) async fn rescue(&mut self, session: &Session) -> Result<(), Lost> {
        let idle = self.connector.options.timing.lease / 5;
        self.next_rescue = Instant::now() + idle;
        let moved = match self.move_some(session).await {
            Ok(moved) => moved,
            // Whoever holds a lock there may not be gone after all.
            Err(Failure::Conflict(_)) => return Ok(()),
            Err(failure) => {
                // It may have happened all the same, and the outbox may have read of it.
                let seen = self.seen.get(&self.lane).copied().unwrap_or(0);
                self.see(self.lane, seen.saturating_add(STEP_EVENTS));
                return self.bear(failure);
            }
        };
        let Some((first, events)) = moved.split_first() else {
            return Ok(());
        };
        self.next_rescue = Instant::now() + STEP_PAUSE;
        let Some(raised) = first.get("raised") else {
            // This process is the one that was given up.
            return self.change_lane(session).await;
        };
        self.see(self.lane, raised);
        let damage = &self.shared.counters.damage;
        let events = events
            .iter()
            .filter_map(|row| entry(row, self.lane, damage));
        let events: Vec<_> = events.collect();
        if let Some(last) = events.last() {
            tracing::info!(
                events = events.len(),
                "taken over from a process that is gone"
            );
            let newest = &self.shared.counters.newest;
            newest.fetch_max(last.position.offset(), Relaxed);
            self.shared.follower.tell(|| events);
        }
        Ok(())
    }

    /// With more care where damage is in the way.
    async fn move_some(&self, session: &Session) -> Result<Vec<Row>, Failure> {
        let mut care = 0;
        loop {
            let params: Params<'_> = &[&self.lane, &self.us, &care, &STEP_EVENTS, &STEP_BYTES];
            match session.rows(RESCUE, params).await {
                Err(failure) if failure.is_damage() && care < 2 => {
                    self.shared.counters.damage.note_database(&failure.reason());
                    care += 1;
                }
                moved => return moved,
            }
        }
    }
}
