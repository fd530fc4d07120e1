//! What a writer does with a new connection before it works again: it finds out what became of its
//! lane and of the batch whose connection was lost.

use super::{
    Pending, Writer,
    attempt::Undecided,
    link::{Connected, Link},
};
use crate::{
    Position, StoreError,
    expiry_clock::{ExpiryClock, SavedExpiry},
    postgres::{
        batch::from_stored_number,
        connection::NoSession,
        failure::Failure,
        lane::{Found, Lane, lane_name},
        session::Session,
    },
};

impl Writer {
    /// A connection is there, or an attempt to make one has failed.
    pub(super) async fn arrived(&mut self, arrived: Result<Connected, NoSession>) {
        let prepared = match arrived {
            Ok(connected) => self.settle(connected).await.map_err(NoSession::from),
            Err(failed) => Err(failed),
        };
        if let (Err(failed), Link::Down(down)) = (prepared, &mut self.link) {
            down.try_again(&self.connector, &failed);
        }
    }

    /// Finds the lane, judges the batch that was lost, and ends the follower; then the batch is
    /// stored again, if it was not stored.
    async fn settle(&mut self, connected: Connected) -> Result<(), Failure> {
        let session = &connected.session;
        self.resume_expiry(session).await?;
        // Waits until every transaction of ours is over, whatever connection it began on.
        let found = match self.lane {
            Some(lane) => self.owner.look(session, lane.number).await?,
            None => None,
        };
        self.judge_pending(session, found.as_ref()).await?;
        let lane = match found {
            Some(found) if found.is_ours => found.lane,
            _ => self.owner.take(session).await?,
        };
        self.keep_positions(session, lane).await?;
        let newest = self.owner.newest(session, lane).await?;
        self.enter(lane, newest);
        self.link = Link::Up(Box::new(connected));
        self.note_saved();
        tracing::info!(
            database = self.connector.database,
            lane = lane.number,
            "writing to PostgreSQL"
        );
        // What is left was judged: it is not stored.
        if let Some(pending) = self.pending.take() {
            self.store(pending.posts).await;
        }
        Ok(())
    }

    /// Finds out what became of a batch whose COMMIT was not answered, and keeps to that: whatever
    /// happens to this connection, the lane is raised from here on, and its position tells no more.
    async fn judge_pending(
        &mut self,
        session: &Session,
        found: Option<&Found>,
    ) -> Result<(), Failure> {
        let undecided = self.pending.as_ref().and_then(|p| p.undecided.as_ref());
        let Some(undecided) = undecided else {
            return Ok(());
        };
        let verdict = judge(session, undecided, found).await?;
        let Some(Pending {
            posts,
            undecided: Some(undecided),
        }) = self.pending.take()
        else {
            return Ok(());
        };
        // The outbox may have read it on the server that was lost, which had it.
        self.see(undecided.lane, undecided.done.last_pos);
        match verdict {
            // The follower was not told: it is let go, and reads of it in the log.
            Verdict::Committed => self.tell(posts, undecided.done, false),
            Verdict::NotStored => {
                self.pending = Some(Pending {
                    posts,
                    undecided: None,
                });
            }
            Verdict::Unknown => self.fail(
                posts,
                &StoreError::OutcomeUnknown {
                    reason: "the connection was lost at COMMIT, and another process has taken \
                             over since"
                        .to_owned(),
                },
            ),
        }
        Ok(())
    }

    /// The lane is this one now, and the follower must read from the log what it may have missed:
    /// what was committed without our being told, or what was left in another's lane.
    fn enter(&mut self, lane: Lane, newest: i64) {
        self.lane = Some(lane);
        self.see(lane, lane.pos);
        let number = lane_name(lane.number);
        self.shared.set_lane(
            Position::new(number, from_stored_number(lane.published_to)),
            from_stored_number(newest),
        );
        self.shared.follower.let_go();
    }

    /// A server that took over and lacks the newest positions must not hand them out again: the
    /// outbox has gone past them, and would not publish what came there. Until then the lane's
    /// events are the same as before.
    async fn keep_positions(&self, session: &Session, lane: Lane) -> Result<(), Failure> {
        match self.seen.get(&lane.number) {
            Some(&seen) if seen > lane.pos => self.owner.skip_to(session, lane.number, seen).await,
            _ => Ok(()),
        }
    }

    /// The lane was given to others, because this process gave no sign of life for too long.
    /// False: there is none to be had now.
    pub(super) async fn change_lane(&mut self) -> bool {
        let Link::Up(link) = &self.link else {
            return false;
        };
        let taken = async {
            let lane = self.owner.take(&link.session).await?;
            self.keep_positions(&link.session, lane).await?;
            let newest = self.owner.newest(&link.session, lane).await?;
            Ok((lane, newest))
        };
        match taken.await {
            Ok((lane, newest)) => {
                let lost = self.lane.map(|lane| lane.number);
                tracing::warn!(
                    lost,
                    lane = lane.number,
                    "another process took over the lane"
                );
                self.enter(lane, newest);
                self.note_saved();
                true
            }
            Err(failure) => {
                self.note_failure(&failure);
                false
            }
        }
    }

    async fn resume_expiry(&self, session: &Session) -> Result<(), Failure> {
        if self.shared.expiry.get().is_some() {
            return Ok(());
        }
        let rows = session
            .seldom(
                "SELECT expiry_clock, expiry_saved_at, coalesce((SELECT max(wrote_at) FROM lanes), 0)
                 FROM state",
                &[],
            )
            .await?;
        let number = |column| from_stored_number(rows[0].get(column));
        let saved = SavedExpiry {
            reading: number(0),
            saved_at: number(1),
        };
        let clock = self.connector.options.clock.clone();
        self.shared
            .expiry
            .get_or_init(|| ExpiryClock::resume(clock, saved, number(2)));
        Ok(())
    }
}

/// What became of a batch whose connection was lost at COMMIT.
enum Verdict {
    Committed,
    NotStored,
    Unknown,
}

/// The lane's position was advanced by the batch's own transaction and never goes back.
async fn judge(
    session: &Session,
    undecided: &Undecided,
    found: Option<&Found>,
) -> Result<Verdict, Failure> {
    let Some(found) = found else {
        // A lane that is not there, on a server that took over, was made by what was lost with it.
        return Ok(Verdict::NotStored);
    };
    if found.lane.pos < undecided.done.last_pos {
        return Ok(Verdict::NotStored);
    }
    if found.is_ours {
        return Ok(Verdict::Committed);
    }
    // Others have used the lane since, and may have advanced it themselves. The event tells, unless
    // retention was faster.
    let rows = session
        .seldom(
            "SELECT event FROM log WHERE channel_no = $1 AND seq = $2",
            &[&undecided.channel_no, &undecided.seq],
        )
        .await;
    let rows = match rows {
        Err(failure) if failure.is_damage() => return Ok(Verdict::Unknown),
        rows => rows?,
    };
    let is_there = rows
        .first()
        .is_some_and(|row| row.get::<_, &[u8]>(0) == undecided.event);
    Ok(if is_there {
        Verdict::Committed
    } else {
        Verdict::Unknown
    })
}
