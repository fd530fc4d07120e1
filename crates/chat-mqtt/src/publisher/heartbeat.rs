use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

/// The pause between two heartbeats.
const PAUSE: Duration = Duration::from_secs(5);

/// A heartbeat counts for so long after its PUBACK: two may be late.
const FRESH: Duration = Duration::from_secs(10);

/// Connections that end over the same heartbeat before a smaller one is tried. One may be chance.
const FAILURES: u8 = 2;

/// When a connection of a publisher last had a PUBACK for a heartbeat; shared with its handles.
#[derive(Debug)]
pub(super) struct Beat {
    name: String,
    acknowledged: Mutex<Option<Instant>>,
}

impl Beat {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            acknowledged: Mutex::new(None),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the broker has taken a heartbeat lately, so that subscribers should have it.
    pub(super) fn is_fresh(&self) -> bool {
        // Nothing can panic while the lock is held.
        let at = self
            .acknowledged
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        at.is_some_and(|at| at.elapsed() < FRESH)
    }

    fn acknowledged(&self, now: Instant) {
        let mut at = self
            .acknowledged
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *at = Some(now);
    }
}

/// What the first heartbeat of a connection has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    /// The broker takes the largest message.
    Fine,
    /// It takes a small heartbeat, but has ended connections over the largest message.
    TooLarge,
    /// It ends connections over the smallest heartbeat.
    Unwelcome,
}

/// How large the first heartbeat of a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    Largest,
    Smallest,
    /// There are no heartbeats.
    None,
}

/// When a connection has to send a heartbeat, and of which size. The first one of each connection is
/// a probe: as large as the largest message, and alone in flight, so that a broker that ends the
/// connection over it leaves no doubt why. Pure: it sends nothing and has no clock.
#[derive(Debug)]
pub(super) struct Heartbeat {
    size: Size,
    failures: u8,
    /// The connection's first has no PUBACK yet.
    probing: bool,
    in_flight: bool,
    next: Instant,
    /// Bytes of the largest payload.
    largest: usize,
}

impl Heartbeat {
    pub(super) fn new(largest: usize, now: Instant) -> Self {
        Self {
            size: Size::Largest,
            failures: 0,
            probing: false,
            in_flight: false,
            next: now,
            largest,
        }
    }

    /// Bytes of the payload that probes.
    pub(super) fn largest(&self) -> usize {
        self.largest
    }

    /// A new connection.
    pub(super) fn connected(&mut self, now: Instant) {
        self.probing = self.size != Size::None;
        self.in_flight = false;
        self.next = now;
    }

    /// Whether nothing else may be sent now.
    pub(super) fn is_probing(&self) -> bool {
        self.probing
    }

    /// When the next is due; `None` while one is in flight, and when there are none.
    pub(super) fn due(&self) -> Option<Instant> {
        (!self.in_flight && self.size != Size::None).then_some(self.next)
    }

    /// The payload of the next, which is sent now: the name, and blanks up to the size.
    pub(super) fn send(&mut self, name: &str, now: Instant) -> Bytes {
        self.in_flight = true;
        self.next = now + PAUSE;
        let mut payload = name.as_bytes().to_vec();
        if self.probing && self.size == Size::Largest {
            payload.resize(self.largest.max(payload.len()), b' ');
        }
        payload.into()
    }

    /// The PUBACK has come. Says what the connection's first has shown.
    pub(super) fn acknowledged(&mut self, beat: &Beat, now: Instant) -> Option<Finding> {
        self.in_flight = false;
        beat.acknowledged(now);
        if !std::mem::take(&mut self.probing) {
            return None;
        }
        self.failures = 0;
        Some(match self.size {
            Size::Largest => Finding::Fine,
            Size::Smallest | Size::None => Finding::TooLarge,
        })
    }

    /// The connection is gone. `lasted`: it had stood for long, so the broker may be another one
    /// the next time.
    pub(super) fn disconnected(&mut self, ended_by_broker: bool, lasted: bool) -> Option<Finding> {
        let suspect = self.probing && self.in_flight && ended_by_broker;
        self.in_flight = false;
        self.probing = false;
        if lasted {
            self.size = Size::Largest;
            self.failures = 0;
            return None;
        }
        if !suspect {
            return None;
        }
        self.failures += 1;
        if self.failures < FAILURES {
            return None;
        }
        self.failures = 0;
        match self.size {
            Size::Largest => {
                self.size = Size::Smallest;
                None
            }
            Size::Smallest | Size::None => {
                self.size = Size::None;
                Some(Finding::Unwelcome)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Connects to a broker that takes payloads up to `limit` bytes; what each attempt shows.
    fn attempt(heartbeat: &mut Heartbeat, beat: &Beat, limit: usize) -> Option<Finding> {
        let now = Instant::now();
        heartbeat.connected(now);
        heartbeat.due()?;
        assert!(heartbeat.is_probing());
        if heartbeat.send(beat.name(), now).len() <= limit {
            let finding = heartbeat.acknowledged(beat, now);
            assert!(!heartbeat.is_probing());
            assert_eq!(heartbeat.due(), Some(now + PAUSE));
            assert_eq!(heartbeat.send(beat.name(), now).len(), beat.name().len());
            assert_eq!(heartbeat.acknowledged(beat, now), None);
            finding
        } else {
            heartbeat.disconnected(true, false)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_below_the_largest_message_is_found_after_two_disconnects() {
        let beat = Beat::new("hark-p0".to_owned());
        let mut heartbeat = Heartbeat::new(10_000, Instant::now());
        assert_eq!(attempt(&mut heartbeat, &beat, 10_000), Some(Finding::Fine));
        assert_eq!(attempt(&mut heartbeat, &beat, 1_000), None);
        assert_eq!(attempt(&mut heartbeat, &beat, 1_000), None);
        let found = attempt(&mut heartbeat, &beat, 1_000);
        assert_eq!(found, Some(Finding::TooLarge));
        // Never again the large one, until the broker may be another.
        let found = attempt(&mut heartbeat, &beat, 1_000);
        assert_eq!(found, Some(Finding::TooLarge));
        assert_eq!(heartbeat.disconnected(true, true), None);
        assert_eq!(attempt(&mut heartbeat, &beat, 10_000), Some(Finding::Fine));
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_refuses_heartbeats_gets_none_and_events_may_go_on() {
        let beat = Beat::new("hark-p0".to_owned());
        let mut heartbeat = Heartbeat::new(10_000, Instant::now());
        let found: Vec<_> = (0..4).map(|_| attempt(&mut heartbeat, &beat, 0)).collect();
        assert_eq!(found, [None, None, None, Some(Finding::Unwelcome)]);
        heartbeat.connected(Instant::now());
        assert!(!heartbeat.is_probing());
        assert_eq!(heartbeat.due(), None);
        assert!(!beat.is_fresh());
    }

    #[tokio::test(start_paused = true)]
    async fn a_beat_is_fresh_for_ten_seconds() {
        let beat = Beat::new("hark-p0".to_owned());
        assert!(!beat.is_fresh());
        attempt(&mut Heartbeat::new(100, Instant::now()), &beat, 100);
        tokio::time::advance(FRESH - Duration::from_millis(1)).await;
        assert!(beat.is_fresh());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!beat.is_fresh());
    }
}
