//! The lane of this process: its row, its lease, and what happened to it while it was away.

use tokio_postgres::{Row, Statement};
use uuid::Uuid;

use super::{
    failure::Failure,
    options::PostgresOptions,
    session::Session,
    steps::{Step, Steps},
};

/// A lane that was this process's own when it last looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lane {
    pub(super) number: i32,
    /// The highest position handed out in it.
    pub(super) pos: i64,
    pub(super) published_to: i64,
}

/// The lane of a position, as callers know it.
pub(super) fn lane_name(number: i32) -> u32 {
    // The database counts lanes up from 1, so that none is negative.
    u32::try_from(number).unwrap_or(0)
}

/// Its number in the database. What is beyond all that the database counts is none of its lanes.
pub(super) fn lane_number(name: u32) -> i32 {
    i32::try_from(name).unwrap_or(0)
}

/// A row of `lanes` with what a [`Lane`] is made of.
macro_rules! lane_columns {
    () => {
        "lane, pos, published_to"
    };
}

impl Lane {
    fn from_row(row: &Row) -> Self {
        Self {
            number: row.get(0),
            pos: row.get(1),
            published_to: row.get(2),
        }
    }
}

/// What a lane's row says after every transaction that changed it is over.
pub(super) struct Found {
    pub(super) lane: Lane,
    pub(super) is_ours: bool,
}

/// Whose lane: one number for each open store.
#[derive(Clone)]
pub(super) struct Owner {
    id: Uuid,
    lease_milliseconds: i64,
    steps: Steps,
}

impl Owner {
    pub(super) fn new(options: &PostgresOptions) -> Self {
        #[cfg(test)]
        let steps = options.steps.clone();
        #[cfg(not(test))]
        let steps = Steps::default();
        let lease = options.timing.lease.as_millis();
        Self {
            id: Uuid::new_v4(),
            lease_milliseconds: i64::try_from(lease).unwrap_or(i64::MAX),
            steps,
        }
    }

    pub(super) fn id(&self) -> &Uuid {
        &self.id
    }

    pub(super) fn lease_milliseconds(&self) -> &i64 {
        &self.lease_milliseconds
    }

    /// Where tests stop.
    pub(super) async fn at(&self, session: &Session, step: Step) -> Result<(), Failure> {
        self.steps.at(session, step).await
    }

    /// Waits for the transactions that hold the lane, which an earlier connection of ours may have
    /// left behind, and takes the lease again if the lane is still ours. `None`: there is no such
    /// lane, so nothing was ever committed in it here.
    pub(super) async fn look(
        &self,
        session: &Session,
        number: i32,
    ) -> Result<Option<Found>, Failure> {
        self.at(session, Step::LockLane).await?;
        // The update waits for whoever holds the row; another's lane is locked and left as it is.
        let rows = session
            .seldom(
                concat!(
                    "UPDATE lanes SET lease_until = CASE WHEN owner = $2
                    THEN clock_timestamp() + $3 * interval '1 millisecond' ELSE lease_until END
                 WHERE lane = $1
                 RETURNING ",
                    lane_columns!(),
                    ", owner IS NOT DISTINCT FROM $2"
                ),
                &[&number, &self.id, &(self.lease_milliseconds as f64)],
            )
            .await?;
        Ok(rows.first().map(|row| Found {
            lane: Lane::from_row(row),
            is_ours: row.get(3),
        }))
    }

    /// Takes a lane that nobody owns any more, first one with something left to publish, or makes
    /// one. What is left in it becomes ours to publish.
    ///
    /// A row that is locked belongs to someone who is at work on it.
    pub(super) async fn take(&self, session: &Session) -> Result<Lane, Failure> {
        self.at(session, Step::TakeLane).await?;
        let lease = self.lease_milliseconds as f64;
        let free = session
            .seldom(
                concat!(
                    "UPDATE lanes SET owner = $1,
                    lease_until = clock_timestamp() + $2 * interval '1 millisecond'
                 WHERE lane = (
                    SELECT lane FROM lanes WHERE owner IS NULL OR lease_until < clock_timestamp()
                    ORDER BY pos > published_to DESC, lane LIMIT 1 FOR UPDATE SKIP LOCKED)
                 RETURNING ",
                    lane_columns!()
                ),
                &[&self.id, &lease],
            )
            .await?;
        let rows = if free.is_empty() {
            session
                .seldom(
                    concat!(
                        "INSERT INTO lanes (owner, lease_until)
                     VALUES ($1, clock_timestamp() + $2 * interval '1 millisecond')
                     RETURNING ",
                        lane_columns!()
                    ),
                    &[&self.id, &lease],
                )
                .await?
        } else {
            free
        };
        let row = rows
            .first()
            .ok_or_else(|| Failure::Lost("no row for a new lane".to_owned()))?;
        Ok(Lane::from_row(row))
    }

    /// The position of the newest event in a lane; where it cannot be read, that of the last one
    /// handed out.
    pub(super) async fn newest(&self, session: &Session, lane: Lane) -> Result<i64, Failure> {
        let newest = "SELECT max(pos) FROM log WHERE lane = $1";
        let newest = match session.seldom(newest, &[&lane.number]).await {
            Ok(rows) => rows.first().and_then(|row| row.get(0)),
            Err(failure) if failure.is_damage() => Some(lane.pos),
            Err(failure) => return Err(failure),
        };
        Ok(lane.published_to.max(newest.unwrap_or(0)))
    }

    /// Takes care that no position up to this one is handed out in a lane of ours again.
    pub(super) async fn skip_to(
        &self,
        session: &Session,
        number: i32,
        pos: i64,
    ) -> Result<(), Failure> {
        session
            .seldom(
                "UPDATE lanes SET pos = greatest(pos, $3) WHERE lane = $1 AND owner = $2",
                &[&number, &self.id, &pos],
            )
            .await?;
        Ok(())
    }

    /// Prolongs the lease and saves the watermark. False: the lane was taken away.
    pub(super) async fn renew(
        &self,
        session: &Session,
        renew: &Statement,
        number: i32,
        published_to: i64,
    ) -> Result<bool, Failure> {
        self.at(session, Step::RenewLane).await?;
        let lease = self.lease_milliseconds as f64;
        let renewed = session
            .execute(renew, &[&number, &self.id, &published_to, &lease])
            .await?;
        Ok(renewed == 1)
    }

    /// Gives the lane up in good order.
    pub(super) async fn give_up(
        &self,
        session: &Session,
        number: i32,
        published_to: i64,
    ) -> Result<(), Failure> {
        session
            .seldom(
                "UPDATE lanes SET owner = NULL, published_to = greatest(published_to, $3)
                 WHERE lane = $1 AND owner = $2",
                &[&number, &self.id, &published_to],
            )
            .await?;
        Ok(())
    }
}
