//! The writer's connection, or the attempts to make one.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use crate::postgres::{
    connection::{Connector, NoSession},
    session::Session,
    statements::Statements,
};

/// The pause before the second attempt to connect; it doubles from one to the next.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The writer's connection.
pub(super) enum Link {
    Up(Box<Connected>),
    Down(Down),
}

/// A session with its statements.
pub(super) struct Connected {
    pub(super) session: Session,
    pub(super) statements: Statements,
}

type Coming = AbortOnDropHandle<Result<Connected, NoSession>>;

/// There is none, and one is being made.
pub(super) struct Down {
    pub(super) since: Instant,
    pub(super) reason: String,
    /// The attempt that is being made, after a pause.
    pub(super) coming: Option<Coming>,
    next_pause: Duration,
}

impl Connected {
    pub(super) async fn prepare(session: Session) -> Result<Self, NoSession> {
        let statements = Statements::prepare(&session).await?;
        Ok(Self {
            session,
            statements,
        })
    }

    async fn after(pause: Duration, connector: Connector) -> Result<Self, NoSession> {
        sleep(pause).await;
        let session = connector.connect().await?;
        Self::prepare(session).await
    }
}

impl Down {
    /// Before the first attempt has come to an end.
    pub(super) fn new() -> Self {
        Self {
            since: Instant::now(),
            reason: String::new(),
            coming: None,
            next_pause: FIRST_PAUSE,
        }
    }

    /// A connection was lost: another is made at once.
    pub(super) fn begin(connector: &Connector, reason: &str) -> Self {
        Self {
            reason: reason.to_owned(),
            coming: Some(attempt(Duration::ZERO, connector)),
            ..Self::new()
        }
    }

    /// Another attempt after a pause, because the last one came to nothing.
    pub(super) fn try_again(&mut self, connector: &Connector, failed: &NoSession) {
        let reason = match failed {
            NoSession::Away(reason) => reason.clone(),
            NoSession::Refused(error) => error.to_string(),
        };
        if reason != self.reason {
            tracing::warn!(reason, "no connection to PostgreSQL");
            self.reason = reason;
        }
        self.coming = Some(attempt(self.next_pause, connector));
        self.next_pause = (self.next_pause * 2).min(LONGEST_PAUSE);
    }
}

/// A task of its own, so that it goes on while posts are refused.
fn attempt(pause: Duration, connector: &Connector) -> Coming {
    let connecting = Connected::after(pause, connector.clone());
    AbortOnDropHandle::new(connector.tasks.spawn(connecting))
}
