//! Where a writer can be stopped: before and after each statement, some of which have a name.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;

use super::control::Control;
use crate::postgres::failure::Failure;
use crate::postgres::statements::{
    BEGIN, BEGIN_BATCH, COMMIT, ENTER, FIND_KEYS, INSERT_EVENTS, JUDGE, REMEMBER_KEYS, RENEW,
    RESCUE, UPDATE_CHANNELS,
};

/// What the writer is about to do, or has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    LockLane,
    TakeLane,
    RenewLane,
    Begin,
    LockChannels,
    FindKeys,
    InsertEvents,
    UpdateChannels,
    RememberKeys,
    Commit,
    Committed,
    Rescue,
    Rescued,
}

/// Before a statement, or when its answer is there and not yet known to the writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    Before,
    After,
}

impl Step {
    pub(super) fn place(self) -> (Moment, &'static str) {
        match self {
            Self::LockLane => (Moment::Before, JUDGE),
            Self::TakeLane => (Moment::Before, ENTER),
            Self::RenewLane => (Moment::Before, RENEW),
            Self::Begin => (Moment::Before, BEGIN),
            Self::LockChannels => (Moment::Before, BEGIN_BATCH),
            Self::FindKeys => (Moment::Before, FIND_KEYS),
            Self::InsertEvents => (Moment::Before, INSERT_EVENTS),
            Self::UpdateChannels => (Moment::Before, UPDATE_CHANNELS),
            Self::RememberKeys => (Moment::Before, REMEMBER_KEYS),
            Self::Commit => (Moment::Before, COMMIT),
            Self::Committed => (Moment::After, COMMIT),
            Self::Rescue => (Moment::Before, RESCUE),
            Self::Rescued => (Moment::After, RESCUE),
        }
    }
}

/// Who decides what becomes of a connection's statements, and whether it was cut.
#[derive(Default)]
pub(in crate::postgres) struct Stops {
    control: MayBeStopped,
    is_cut: AtomicBool,
}

pub(in crate::postgres) type MayBeStopped = Option<Arc<Control>>;

impl Stops {
    pub(in crate::postgres) fn by(control: &MayBeStopped) -> Self {
        Self {
            control: control.clone(),
            is_cut: AtomicBool::new(false),
        }
    }

    pub(in crate::postgres) async fn before(
        &self,
        sql: &str,
        client: &tokio_postgres::Client,
    ) -> Result<(), Failure> {
        match self.meet(Moment::Before, sql).await? {
            // The server's own error, which ends its transaction as any other does.
            Some(code) => {
                let raise = format!(
                    "DO $$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = '{code}'; END $$"
                );
                let refused = client.batch_execute(&raise).await;
                Err(refused.expect_err("it raises").into())
            }
            None => Ok(()),
        }
    }

    pub(in crate::postgres) async fn after(&self, sql: &str) -> Result<(), Failure> {
        self.meet(Moment::After, sql).await.map(drop)
    }

    /// The error with which the server is to refuse the statement, if it is.
    async fn meet(&self, moment: Moment, sql: &str) -> Result<Option<&'static str>, Failure> {
        let Some(control) = &self.control else {
            return Ok(None);
        };
        if moment == Moment::Before {
            control.statements.fetch_add(1, SeqCst);
        }
        // Nothing more comes through, as in a network that is cut.
        let lost = || Failure::Lost(format!("cut {moment:?}: {sql}"));
        if self.is_cut.load(SeqCst) {
            return Err(lost());
        }
        for is_named in [true, false] {
            let stop = match is_named {
                true => control.stop_at_step(moment, sql),
                false => control.stop_here(moment),
            };
            match control.obey(stop).await {
                Order::GoOn => {}
                Order::Refuse(code) => return Ok(Some(code)),
                Order::Cut => {
                    self.is_cut.store(true, SeqCst);
                    return Err(lost());
                }
            }
        }
        Ok(None)
    }
}

/// What a connection is to do at a statement.
pub(super) enum Order {
    GoOn,
    Cut,
    Refuse(&'static str),
}

/// What becomes of a writer at a step or a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// It waits there until it is woken, its connection open.
    Pause,
    /// Its connection is lost there.
    Cut,
    /// Its process is gone there, without a word to the server.
    Kill,
    /// The server refuses the statement, with this SQLSTATE.
    Refuse(&'static str),
    /// The server is gone there, and the replica takes over with what it has.
    FailOver,
}
