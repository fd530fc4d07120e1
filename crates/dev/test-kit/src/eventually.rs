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

/// The repeated attempts of one [`eventually!`](crate::eventually).
#[derive(Debug)]
pub struct Attempts {
    within: Duration,
    deadline: Instant,
    last: Unmet,
}

impl Attempts {
    /// Attempts for this long from now.
    #[must_use]
    pub fn within(within: Duration) -> Self {
        let last = "the first attempt did not finish".into();
        Self {
            within,
            deadline: Instant::now() + within,
            last,
        }
    }

    /// Makes one attempt; `None` means that there is time for another.
    ///
    /// # Panics
    /// When the time is over; the message holds the last attempt's error.
    pub async fn make<T>(&mut self, attempt: impl Future<Output = Attempt<T>>) -> Option<T> {
        let within = self.within;
        match timeout_at(self.deadline, attempt).await {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(unmet)) => self.last = unmet,
            Err(_) => panic!(
                "not within {within:?}, the last attempt hangs; before it: {}",
                self.last
            ),
        }
        assert!(
            Instant::now() < self.deadline,
            "not within {within:?}: {}",
            self.last
        );
        sleep(PAUSE).await;
        None
    }
}

/// Repeats a block until it is `Ok`, at most for the given duration, and
/// evaluates to its value. The block may await and use `?` on any error.
///
/// # Panics
/// When the time is over; the message holds the last attempt's error.
#[macro_export]
macro_rules! eventually {
    ($within:expr, $body:block) => {{
        let mut attempts = $crate::Attempts::within($within);
        loop {
            if let Some(value) = attempts.make(async { $body }).await {
                break value;
            }
        }
    }};
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
