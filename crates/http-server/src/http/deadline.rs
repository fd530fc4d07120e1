use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer that costs nothing while it does not matter: it is set when first asked, and afterwards
/// moved only when it has fired or the moment asked for comes earlier than the one it is set to. A
/// connection that makes progress therefore wakes once per time-out, not once per write.
#[derive(Default)]
pub(super) struct Deadline {
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// Whether `at` has come; if not, the task is woken when it does, or earlier.
    pub(super) fn passed(&mut self, cx: &mut Context<'_>, at: Instant) -> bool {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() > at {
            timer.as_mut().reset(at);
        }
        loop {
            if timer.as_mut().poll(cx) == Poll::Pending {
                return false;
            }
            if timer.deadline() >= at || Instant::now() >= at {
                return true;
            }
            timer.as_mut().reset(at);
        }
    }
}
