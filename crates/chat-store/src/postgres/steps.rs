//! Where a writer can be stopped in tests: before every statement, and after COMMIT.

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

/// Decides what becomes of a writer at a step: it may wait there, for ever if it is killed.
#[cfg(test)]
#[async_trait::async_trait]
pub(super) trait Hook: Send + Sync {
    /// False: the connection is lost here.
    async fn at(&self, step: Step) -> bool;
}

impl Steps {
    #[cfg(test)]
    pub(super) async fn at(&self, session: &Session, step: Step) -> Result<(), Failure> {
        if let Some(hook) = &self.hook
            && !hook.at(step).await
        {
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
