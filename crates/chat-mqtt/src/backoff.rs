//! Back-off between attempts. Not a library, because libraries add their jitter on top of the longest
//! pause (decision 30).

use std::time::Duration;

use rand::RngExt as _;

/// Jittered exponential back-off between attempts to reach a broker.
///
/// The pause before attempt *n* is drawn uniformly from the upper half of
/// `min · 2ⁿ`, capped at `max`. When a broker is back, thousands of clients
/// therefore do not reconnect in step, and none reconnects at once.
#[derive(Debug, Clone)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    attempts: u32,
}

impl Backoff {
    /// For Hark's connections: 100 ms to 5 s.
    pub const CONNECTION: Self = Self::new(Duration::from_millis(100), Duration::from_secs(5));

    /// For filters that a broker refuses: 1 s to 60 s.
    pub(crate) const REFUSED: Self = Self::new(Duration::from_secs(1), Duration::from_secs(60));

    /// Pauses between `min / 2` and `max`; the first is at most `min`.
    pub const fn new(min: Duration, max: Duration) -> Self {
        Self {
            min,
            max,
            attempts: 0,
        }
    }

    /// The pause before the next attempt.
    pub fn next_pause(&mut self) -> Duration {
        let full = self.ceiling();
        self.attempts = self.attempts.saturating_add(1);
        full / 2 + full.mul_f64(rand::rng().random_range(0.0..=0.5))
    }

    /// The longest pause that [`next_pause`](Self::next_pause) may return now.
    pub fn ceiling(&self) -> Duration {
        let factor = 2_u32.saturating_pow(self.attempts);
        self.min
            .checked_mul(factor)
            .map_or(self.max, |pause| pause.min(self.max))
    }

    /// Starts over, because the last attempt led to something that lasted.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pauses_grow_to_the_maximum_and_stay_within_their_half(
            min_ms in 1_u64..1_000,
            factor in 1_u64..1_000,
            attempts in 1_usize..80,
        ) {
            let min = Duration::from_millis(min_ms);
            let max = Duration::from_millis(min_ms * factor);
            let mut backoff = Backoff::new(min, max);
            let mut before = Duration::ZERO;
            for _ in 0..attempts {
                let ceiling = backoff.ceiling();
                prop_assert!(ceiling >= before && ceiling <= max);
                let pause = backoff.next_pause();
                prop_assert!(pause >= ceiling / 2 && pause <= ceiling);
                before = ceiling;
            }
            backoff.reset();
            prop_assert_eq!(backoff.ceiling(), min);
        }
    }
}
