//! What a writer does with a new connection before it works again: it finds out what became of the
//! batch whose connection was lost, and enters its lane.

use super::attempt::Done;
use super::{Lost, Pending, Writer};
use crate::expiry_clock::{ExpiryClock, SavedExpiry};
use crate::postgres::failure::Failure;
use crate::postgres::numbers::{from_stored_number, lane_name};
use crate::postgres::session::Session;
use crate::queue::Post;
use crate::{Appended, Position, StoreError};

/// What became of a batch whose connection was lost at COMMIT.
enum Verdict {
    Committed,
    NotStored,
    Unknown,
}

impl Writer {
    /// Afterwards what is still pending is not stored.
    pub(super) async fn settle(&mut self, session: &Session) -> Result<(), Failure> {
        self.resume_expiry(session).await?;
        self.judge_pending(session).await?;
        self.enter(session).await?;
        let database = &self.connector.database;
        tracing::info!(database, lane = self.lane, "writing to PostgreSQL");
        Ok(())
    }

    /// Finds out what became of a batch whose COMMIT was not answered, and keeps to that: whatever
    /// happens to this connection, the lane is raised from here on, and its position tells no more.
    async fn judge_pending(&mut self, session: &Session) -> Result<(), Failure> {
        let verdict = match &self.pending {
            Some(Pending {
                posts,
                undecided: Some(done),
            }) => self.judge(session, posts, done).await?,
            _ => return Ok(()),
        };
        let Some((posts, done)) = self
            .pending
            .take()
            .and_then(|p| Some((p.posts, p.undecided?)))
        else {
            return Ok(());
        };
        // The outbox may have read it on the server that was lost, which had it.
        self.see(done.lane, done.last_pos);
        match verdict {
            // The follower was not told: it is let go, and reads of it in the log.
            Verdict::Committed => self.tell(posts, *done, false),
            Verdict::NotStored => {
                let undecided = None;
                self.pending = Some(Pending { posts, undecided });
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

    /// The lane's position was advanced by the batch's own transaction and never goes back.
    async fn judge(
        &self,
        session: &Session,
        posts: &[Post],
        done: &Done,
    ) -> Result<Verdict, Failure> {
        // A lane that is not there, on a server that took over, was made by what was lost with it.
        let Some((pos, is_ours)) = self.owner.look(session, done.lane).await? else {
            return Ok(Verdict::NotStored);
        };
        if pos < done.last_pos {
            return Ok(Verdict::NotStored);
        }
        if is_ours {
            return Ok(Verdict::Committed);
        }
        // Others have used the lane since, and may have advanced it themselves. An event tells, unless
        // retention was faster.
        let mut outcomes = posts.iter().zip(&done.outcomes);
        let stored = outcomes.find_map(|(post, outcome)| match outcome {
            Ok(Appended::Stored { event, seq, .. }) => {
                Some((post.new.channel.uuid(), *seq, event.as_ref()))
            }
            _ => None,
        });
        let Some((channel, seq, event)) = stored else {
            return Ok(Verdict::Unknown);
        };
        let find = "SELECT FROM log WHERE channel_no = (SELECT no FROM channels WHERE uuid = $1)
            AND seq = $2::bigint AND event = $3";
        let seq = crate::postgres::numbers::to_stored_number(seq);
        match session.rows(find, &[&channel, &seq, &event]).await {
            Ok(found) if !found.is_empty() => Ok(Verdict::Committed),
            Err(failure) if !failure.is_damage() => Err(failure),
            _ => Ok(Verdict::Unknown),
        }
    }

    /// Goes on in the lane, or in another one if others have taken it. The follower must read from
    /// the log what it may have missed: what was committed without our being told, or what was left
    /// in another's lane.
    pub(super) async fn enter(&mut self, session: &Session) -> Result<(), Failure> {
        let seen = self.seen.iter().unzip();
        let entered = self.owner.enter(session, self.lane, seen).await?;
        if self.lane != 0 && self.lane != entered.lane {
            let (lost, lane) = (self.lane, entered.lane);
            tracing::warn!(lost, lane, "another process took over the lane");
        }
        self.lane = entered.lane;
        self.see(entered.lane, entered.pos);
        self.shared.set_lane(
            Position::new(
                lane_name(entered.lane),
                from_stored_number(entered.published_to),
            ),
            from_stored_number(entered.newest),
        );
        self.shared.follower.let_go();
        self.note_saved();
        Ok(())
    }

    /// [`enter`](Self::enter), when there may be no lane to be had now.
    pub(super) async fn change_lane(&mut self, session: &Session) -> Result<(), Lost> {
        match self.enter(session).await {
            Ok(()) => Ok(()),
            Err(failure) => self.bear(failure),
        }
    }

    async fn resume_expiry(&self, session: &Session) -> Result<(), Failure> {
        if self.shared.expiry.get().is_some() {
            return Ok(());
        }
        let saved =
            "SELECT expiry_clock, expiry_saved_at, coalesce((SELECT max(wrote_at) FROM lanes), 0)
             FROM state";
        let row = session.row(saved, &[]).await?;
        let number = |column| from_stored_number(row.get(column));
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
