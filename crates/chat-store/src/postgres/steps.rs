//! Where a writer can be stopped in tests: before and after every statement, some of which have a
//! name here.

use super::{failure::Failure, session::Session};

/// What the writer is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    LockLane,
    TakeLane,
    RenewLane,
    Begin,
    AdvanceLane,
    LockChannels,
    FindKeys,
    InsertEvents,
    UpdateChannels,
    RememberKeys,
    Commit,
    Committed,
    Fence,
    Move,
    CommitMove,
    MoveCommitted,
}

/// Asked at each step; nothing at all outside of this crate's own tests.
#[derive(Clone, Default)]
pub(super) struct Steps {
    #[cfg(test)]
    pub(super) hook: Option<std::sync::Arc<dyn Hook>>,
}

/// Where a writer is.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Named(Step),
    /// A statement, whichever it is, is about to be sent.
    BeforeStatement,
    /// Its answer is there, and not yet known to the writer.
    AfterStatement,
}

/// What becomes of a writer at a place.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    GoOn,
    /// The connection is lost.
    Cut,
    /// The server refuses the statement, with this SQLSTATE.
    Refuse(&'static str),
}

/// Decides what becomes of a writer at a place: it may wait there, for ever if it is killed.
#[cfg(test)]
#[async_trait::async_trait]
pub(super) trait Hook: Send + Sync {
    async fn at(&self, place: Place) -> Order;
}

impl Steps {
    #[cfg(test)]
    pub(super) async fn order(&self, place: Place) -> Order {
        match &self.hook {
            Some(hook) => hook.at(place).await,
            None => Order::GoOn,
        }
    }

    #[cfg(test)]
    pub(super) async fn at(&self, session: &Session, step: Step) -> Result<(), Failure> {
        if self.order(Place::Named(step)).await == Order::Cut {
            session.cut();
            return Err(Failure::Lost(format!("cut at {step:?}")));
        }
        Ok(())
    }

    #[cfg(not(test))]
    pub(super) async fn at(&self, _session: &Session, _step: Step) -> Result<(), Failure> {
        Ok(())
    }
}

/// Sends statements one right after the other and then waits for all their answers: one round trip.
/// This crate's own tests, which stop between two of them, send each after the last one's answer.
macro_rules! pipelined {
    ($($statement:expr),+ $(,)?) => {{
        #[cfg(not(test))]
        { tokio::join!(biased; $($statement),+) }
        #[cfg(test)]
        { ($($statement.await,)+) }
    }};
}
pub(super) use pipelined;
