//! A line in the log for something that may happen very often.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Between two lines.
const PAUSE: Duration = Duration::from_secs(60);

/// Lets one line through in a minute, and counts for it what happened since the last.
#[derive(Debug, Default)]
pub(crate) struct Seldom(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    count: u64,
    last: Option<Instant>,
}

impl Seldom {
    /// Notes that it happened so many times; how often since the last line, if it is time for one.
    pub(crate) fn note(&self, times: u64) -> Option<u64> {
        self.note_at(times, Instant::now())
    }

    fn note_at(&self, times: u64, now: Instant) -> Option<u64> {
        let mut state = self.0.lock();
        state.count += times;
        if state.last.is_some_and(|last| now < last + PAUSE) {
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_minute_tells_of_all() {
        let seldom = Seldom::default();
        let start = Instant::now();
        assert_eq!(seldom.note_at(2, start), Some(2));
        assert_eq!(seldom.note_at(3, start + PAUSE / 2), None);
        assert_eq!(seldom.note_at(1, start + PAUSE), Some(4));
    }
}
