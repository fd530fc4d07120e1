//! The lane of this process: its row and its lease.

use std::time::Duration;

use uuid::Uuid;

use super::failure::Failure;
use super::session::{Params, Session};

/// Waits for the transactions that hold a lane, and tells what is in its row then. Another's is
/// locked and left as it is.
pub(super) const LOOK: &str = "
    UPDATE lanes SET lease_until = CASE WHEN owner = $2
        THEN clock_timestamp() + $3 * interval '1 millisecond' ELSE lease_until END
    WHERE lane = $1 RETURNING pos, owner IS NOT DISTINCT FROM $2";

pub(super) const ENTER: &str =
    "SELECT lane, pos, published_to, newest FROM enter_lane($1, $2, $3, $4, $5)";

pub(super) const RENEW: &str = "
    UPDATE lanes SET published_to = greatest(published_to, $4),
        lease_until = clock_timestamp() + $3 * interval '1 millisecond'
    WHERE lane = $1 AND owner = $2";

/// Whose lane: one number for each open store.
pub(super) struct Owner {
    pub(super) id: Uuid,
    /// Milliseconds.
    pub(super) lease: f64,
}

/// Where a lane is.
pub(super) struct Entered {
    pub(super) lane: i32,
    /// The highest position handed out in it.
    pub(super) pos: i64,
    pub(super) published_to: i64,
    /// The position of its newest event.
    pub(super) newest: i64,
}

impl Owner {
    pub(super) fn new(lease: Duration) -> Self {
        Self {
            id: Uuid::new_v4(),
            lease: lease.as_secs_f64() * 1000.0,
        }
    }

    /// The highest position handed out in a lane, and whether it is still ours, after everything
    /// that an earlier connection may have left behind there is over. `None`: there is no such lane.
    pub(super) async fn look(
        &self,
        session: &Session,
        lane: i32,
    ) -> Result<Option<(i64, bool)>, Failure> {
        let rows = session.rows(LOOK, &[&lane, &self.id, &self.lease]).await?;
        Ok(rows.first().map(|row| (row.get(0), row.get(1))))
    }

    /// Goes on in a lane if it is still ours, or in another, beyond all positions that were seen of it.
    pub(super) async fn enter(
        &self,
        session: &Session,
        lane: i32,
        seen: (Vec<i32>, Vec<i64>),
    ) -> Result<Entered, Failure> {
        let params: Params<'_> = &[&lane, &self.id, &self.lease, &seen.0, &seen.1];
        let row = session.row(ENTER, params).await?;
        Ok(Entered {
            lane: row.get(0),
            pos: row.get(1),
            published_to: row.get(2),
            newest: row.get(3),
        })
    }

    /// Prolongs the lease and saves the watermark. False: the lane was taken away.
    pub(super) async fn renew(
        &self,
        session: &Session,
        lane: i32,
        published_to: i64,
    ) -> Result<bool, Failure> {
        let params: Params<'_> = &[&lane, &self.id, &self.lease, &published_to];
        Ok(session.execute(RENEW, params).await? == 1)
    }

    /// Gives the lane up in good order.
    pub(super) async fn give_up(
        &self,
        session: &Session,
        lane: i32,
        published_to: i64,
    ) -> Result<(), Failure> {
        let give_up = "UPDATE lanes SET owner = NULL, published_to = greatest(published_to, $3)
            WHERE lane = $1 AND owner = $2";
        let params: Params<'_> = &[&lane, &self.id, &published_to];
        session.execute(give_up, params).await.map(drop)
    }
}
