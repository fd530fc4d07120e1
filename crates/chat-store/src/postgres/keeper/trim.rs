//! No channel keeps more events than it may.

use std::sync::atomic::Ordering::Relaxed;

use super::{Keeper, NoSession, STEP_CHANNELS, STEP_EVENTS};
use crate::postgres::{
    batch::{from_stored_number, to_stored_number},
    failure::Failure,
    session::Session,
};

impl Keeper {
    /// Removes the surplus of one channel.
    pub(super) async fn shorten(&mut self, channel: i64) -> Result<u64, NoSession> {
        let limit = self.connector.options.retention.max_per_channel;
        let mut removed = 0;
        loop {
            let session = self.session().await?;
            let (step, more) = session
                .transaction(shorten(session, channel, limit))
                .await?;
            removed += step;
            self.shared.counters.expired.fetch_add(step, Relaxed);
            if !more {
                return Ok(removed);
            }
            self.pause().await;
        }
    }

    /// Looks at some more of all channels.
    pub(super) async fn sweep_some(&mut self) -> Result<u64, NoSession> {
        let Some(seen) = self.sweep else {
            return Ok(0);
        };
        let limit = to_stored_number(self.connector.options.retention.max_per_channel);
        let rows = self
            .session()
            .await?
            .seldom(
                "SELECT no, head - floor > $3 FROM channels WHERE no > $1 ORDER BY no LIMIT $2",
                &[&seen, &STEP_CHANNELS, &limit],
            )
            .await?;
        let mut removed = 0;
        for row in &rows {
            if row.get(1) {
                removed += self.shorten(row.get(0)).await?;
            }
        }
        self.sweep = rows.last().map(|row| row.get(0));
        Ok(removed)
    }
}

/// One step, inside the open transaction: how many were removed, and whether there are more. The
/// row of the log is locked, so that the floor and what lies above it change together.
async fn shorten(session: &Session, channel: i64, limit: u64) -> Result<(u64, bool), Failure> {
    let rows = session
        .seldom(
            "SELECT head, floor FROM channels WHERE no = $1 FOR UPDATE",
            &[&channel],
        )
        .await?;
    let Some(row) = rows.first() else {
        return Ok((0, false));
    };
    let (head, floor) = (
        from_stored_number(row.get(0)),
        from_stored_number(row.get(1)),
    );
    let wanted = head.saturating_sub(limit);
    let to = wanted.min(floor + STEP_EVENTS);
    if to <= floor {
        return Ok((0, false));
    }
    let (from, up_to) = (to_stored_number(floor), to_stored_number(to));
    session
        .seldom(
            "DELETE FROM log WHERE channel_no = $1 AND seq > $2 AND seq <= $3",
            &[&channel, &from, &up_to],
        )
        .await?;
    session
        .seldom(
            "UPDATE channels SET floor = $2 WHERE no = $1",
            &[&channel, &up_to],
        )
        .await?;
    Ok((to - floor, to < wanted))
}
