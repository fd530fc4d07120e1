//! What a writer does with a new connection before it works again: it finds out what became of the
//! batch whose connection was lost, and enters its lane.

use super::attempt::Done;
use super::{Lost, Pending, Writer};
use crate::expiry_clock::{ExpiryClock, SavedExpiry};
use crate::postgres::failure::Failure;
use crate::postgres::numbers::{from_stored_number, lane_name, to_stored_number};
use crate::postgres::session::{Params, Session};
use crate::postgres::statements::{ENTER, JUDGE};
use crate::queue::Post;
use crate::{Appended, Position, StoreError};

impl Writer {
    /// Afterwards what is still pending is not stored.
    pub(super) async fn settle(&mut self, session: &Session) -> Result<(), Failure> {
        self.judge_pending(session).await?;
        self.enter(session).await?;
        let database = &self.connector.database;
        tracing::info!(database, lane = self.lane, "writing to PostgreSQL");
        Ok(())
    }

    /// Finds out what became of a batch whose COMMIT was not answered, and keeps to that: whatever
    /// happens to this connection, the lane is raised from here on, and its position tells no more.
    async fn judge_pending(&mut self, session: &Session) -> Result<(), Failure> {
        let Some(Pending { posts, undecided }) = self.pending.take() else {
            return Ok(());
        };
        let verdict = match &undecided {
            Some(done) => self.judge(session, &posts, done).await,
            None => Ok(Some(false)),
        };
        if let (Ok(_), Some(done)) = (&verdict, &undecided) {
            // The outbox may have read it on the server that was lost, which had it.
            self.see(done.lane, done.last_pos);
        }
        match (verdict, undecided) {
            // The follower was not told: it is let go, and reads of it in the log.
            (Ok(Some(true)), Some(done)) => self.tell(posts, *done, false),
            (Ok(None), _) => {
                let reason =
                    "the connection was lost at COMMIT, and another process has taken over since";
                let reason = reason.to_owned();
                self.fail(posts, &StoreError::OutcomeUnknown { reason });
            }
            (Ok(Some(_)), _) => {
                let undecided = None;
                self.pending = Some(Pending { posts, undecided });
            }
            (Err(failure), undecided) => {
                self.pending = Some(Pending { posts, undecided });
                return Err(failure);
            }
        }
        Ok(())
    }

    /// Whether a batch was stored; `None` if nobody can tell.
    async fn judge(
        &self,
        session: &Session,
        posts: &[Post],
        done: &Done,
    ) -> Result<Option<bool>, Failure> {
        let mut outcomes = posts.iter().zip(&done.outcomes);
        let stored = outcomes.find_map(|(post, outcome)| match outcome {
            Ok(Appended::Stored { event, seq, .. }) => Some((
                post.new.channel.uuid(),
                to_stored_number(*seq),
                event.as_ref(),
            )),
            _ => None,
        });
        let Some((channel, seq, event)) = stored else {
            return Ok(None);
        };
        let params: Params<'_> = &[&done.lane, &self.us, &done.last_pos, &channel, &seq, &event];
        Ok(session.row(JUDGE, params).await?.get(0))
    }

    /// Goes on in the lane, or in another one if others have taken it. The follower must read from
    /// the log what it may have missed: what was committed without our being told, or what was left
    /// in another's lane.
    pub(super) async fn enter(&mut self, session: &Session) -> Result<(), Failure> {
        let (lanes, seen): (Vec<i32>, Vec<i64>) = self.seen.iter().unzip();
        let params: Params<'_> = &[&self.lane, &self.us, &self.lease, &lanes, &seen];
        let entered = session.row(ENTER, params).await?;
        let lane = entered.get("lane");
        if self.lane != 0 && self.lane != lane {
            tracing::warn!(lost = self.lane, lane, "another process took over the lane");
        }
        self.lane = lane;
        self.see(lane, entered.get("pos"));
        let number = |column| from_stored_number(entered.get(column));
        let published_to = Position::new(lane_name(lane), number("published_to"));
        self.shared.set_lane(published_to, number("newest"));
        self.shared.expiry.get_or_init(|| {
            let saved = SavedExpiry {
                reading: number("expiry_clock"),
                saved_at: number("expiry_saved_at"),
            };
            let clock = self.connector.options.clock.clone();
            ExpiryClock::resume(clock, saved, number("wrote_at"))
        });
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
}
