use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer that is cheap to postpone. It is set when first asked. After that it is moved only when it
/// has fired, or when an earlier time is asked for. A connection that makes progress therefore wakes
/// once per time-out, not once per write.
#[derive(Default)]
pub(super) struct Deadline {
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// Whether `at` has passed. If not, the task is woken then or earlier.
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
