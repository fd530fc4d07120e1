use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// Why an attempt of [`eventually!`](crate::eventually) does not hold yet.
/// Texts and errors convert into it with `?` and [`ensure!`](crate::ensure).
pub type Unmet = Box<dyn std::error::Error + Send + Sync>;

/// What one attempt of [`eventually!`](crate::eventually) evaluates to.
pub type Attempt<T> = Result<T, Unmet>;

/// Pause between two attempts: short enough not to be felt in a test's
/// duration, long enough not to load the machine that is being tested.
const PAUSE: Duration = Duration::from_millis(20);

/// Repeats `attempt` until it is `Ok`, at most for `within`.
/// [`eventually!`](crate::eventually) is the comfortable way to call it.
///
/// # Panics
/// When the time is over; the message holds the last attempt's error.
pub async fn attempt_until<T>(within: Duration, mut attempt: impl AsyncFnMut() -> Attempt<T>) -> T {
    let deadline = Instant::now() + within;
    let mut last: Unmet = "the first attempt did not finish".into();
    loop {
        match timeout_at(deadline, attempt()).await {
            Ok(Ok(value)) => return value,
            Ok(Err(unmet)) => last = unmet,
            Err(_) => panic!("not within {within:?}, the last attempt hangs; before it: {last}"),
        }
        assert!(Instant::now() < deadline, "not within {within:?}: {last}");
        sleep(PAUSE).await;
    }
}

/// Repeats a block until it is `Ok`, at most for the given duration, and
/// evaluates to its value. The block may await and use `?` on any error.
///
/// # Panics
/// When the time is over; the message holds the last attempt's error.
#[macro_export]
macro_rules! eventually {
    ($within:expr, $body:block) => {
        $crate::attempt_until($within, async || -> $crate::Attempt<_> { $body }).await
    };
}

/// Returns an error with the given message from an attempt unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!($($message)+).into());
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "not within 2s: still 1")]
    async fn the_last_error_is_shown() {
        eventually!(Duration::from_secs(2), {
            ensure!(1 > 1, "still {}", 1);
            Ok(())
        });
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "hangs; before it: first")]
    async fn a_hanging_attempt_is_cut_and_the_error_before_it_is_shown() {
        let mut attempts = 0;
        eventually!(Duration::from_secs(2), {
            attempts += 1;
            ensure!(attempts > 1, "first");
            std::future::pending::<()>().await;
            Ok(())
        });
    }
}
