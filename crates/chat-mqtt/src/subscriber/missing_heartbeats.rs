use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// How long the broker must have accepted a publisher's heartbeats, none of which arrives, until a
/// connection counts as deaf. Longer than two pauses between heartbeats, and than a heartbeat stays fresh.
pub(super) const DEAF_AFTER: Duration = Duration::from_secs(12);

/// A publisher that has not been mentioned for this long is gone.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);

/// More publishers than any Hark has.
const MAX_NAMES: usize = 256;

/// The heartbeats that one connection should have received and has not.
///
/// It compares what others report about the broker with what arrives, using only the local clock. A
/// publisher's heartbeat is missing if the broker was reported to accept its heartbeats at one moment and
/// still 12 s later, and none arrived in between. A publisher that stops, or loses its broker, is no
/// longer reported, and so is not missed. Pure: it has no clock.
#[derive(Debug, Default)]
pub(super) struct MissingHeartbeats {
    expected: HashMap<String, Expected>,
    /// Reading is paused, or the subscription is not live: nothing can arrive.
    excused: bool,
}

#[derive(Debug)]
struct Expected {
    first: Instant,
    last: Instant,
}

impl MissingHeartbeats {
    /// Notes that the broker has recently accepted these heartbeats. Returns the name of one that is
    /// missing.
    pub(super) fn expect(&mut self, names: &[String], now: Instant) -> Option<String> {
        if self.excused {
            return None;
        }
        self.expected
            .retain(|_, expected| now - expected.last < FORGOTTEN_AFTER);
        for name in names {
            if let Some(expected) = self.expected.get_mut(name) {
                expected.last = now;
            } else if self.expected.len() < MAX_NAMES {
                let expected = Expected {
                    first: now,
                    last: now,
                };
                self.expected.insert(name.clone(), expected);
            }
        }
        self.missing()
    }

    /// Notes that this heartbeat has arrived. Returns the name of another one that is missing.
    pub(super) fn heard(&mut self, name: &str) -> Option<String> {
        self.expected.remove(name);
        self.missing()
    }

    /// Notes that nothing can arrive from now on; or that it can again, and what has not arrived so far is
    /// excused.
    pub(super) fn excuse(&mut self, excused: bool) {
        if self.excused != excused {
            self.excused = excused;
            self.expected.clear();
        }
    }

    fn missing(&self) -> Option<String> {
        let mut missing = self
            .expected
            .iter()
            .filter(|(_, expected)| expected.last - expected.first >= DEAF_AFTER)
            .map(|(name, _)| name);
        missing.next().cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Reports every two seconds, for this long, that the broker accepts this heartbeat.
    fn expects(
        missing_heartbeats: &mut MissingHeartbeats,
        name: &str,
        from: Instant,
        seconds: u32,
    ) -> Option<String> {
        let mut missing = None;
        for second in (0..=seconds).step_by(2) {
            missing = missing_heartbeats.expect(&[name.to_owned()], from + second * SECOND);
        }
        missing
    }

    #[test]
    fn a_heartbeat_is_missing_when_the_broker_has_taken_it_for_12_seconds() {
        let (mut missing_heartbeats, start) = (MissingHeartbeats::default(), Instant::now());
        assert_eq!(expects(&mut missing_heartbeats, "a", start, 10), None);
        assert_eq!(
            expects(&mut missing_heartbeats, "a", start, 12).as_deref(),
            Some("a")
        );
        assert_eq!(missing_heartbeats.heard("b").as_deref(), Some("a"));
        assert_eq!(missing_heartbeats.heard("a"), None);
    }

    #[test]
    fn one_that_arrives_now_and_then_is_never_missing() {
        let (mut missing_heartbeats, start) = (MissingHeartbeats::default(), Instant::now());
        for beat in 0..100 {
            assert_eq!(
                expects(&mut missing_heartbeats, "a", start + beat * 10 * SECOND, 10),
                None
            );
            missing_heartbeats.heard("a");
        }
    }

    #[test]
    fn one_that_the_broker_no_longer_takes_is_not_missing() {
        let (mut missing_heartbeats, start) = (MissingHeartbeats::default(), Instant::now());
        expects(&mut missing_heartbeats, "a", start, 10);
        for second in 10..60 {
            assert_eq!(
                missing_heartbeats.expect(&[], start + second * SECOND),
                None
            );
        }
        assert!(missing_heartbeats.expected.is_empty());
    }

    #[test]
    fn what_cannot_arrive_is_excused() {
        let (mut missing_heartbeats, start) = (MissingHeartbeats::default(), Instant::now());
        expects(&mut missing_heartbeats, "a", start, 10);
        missing_heartbeats.excuse(true);
        assert_eq!(
            expects(&mut missing_heartbeats, "a", start + 10 * SECOND, 30),
            None
        );
        missing_heartbeats.excuse(false);
        let missing = expects(&mut missing_heartbeats, "a", start + 40 * SECOND, 10);
        assert_eq!(missing, None);
    }

    #[test]
    fn names_without_end_take_no_memory_without_end() {
        let (mut missing_heartbeats, start) = (MissingHeartbeats::default(), Instant::now());
        for name in 0..10_000 {
            missing_heartbeats.expect(&[name.to_string()], start);
        }
        assert_eq!(missing_heartbeats.expected.len(), MAX_NAMES);
    }
}
