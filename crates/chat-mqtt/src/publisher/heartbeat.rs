use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::session::LASTING;

/// The pause between two heartbeats.
const PAUSE: Duration = Duration::from_secs(5);

/// How long a heartbeat counts after its PUBACK: two may be late.
const FRESH: Duration = Duration::from_secs(10);

/// How many connections must end over the same heartbeat before a smaller one is tried. One may be
/// chance; a cluster that lacks a node may end several.
const FAILURES: u8 = 2;

/// When a publisher's connection last had a PUBACK for a heartbeat; shared with the publisher's handles.
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

    /// Whether the broker has accepted a heartbeat recently, so that subscribers should have it.
    pub(super) fn is_fresh(&self) -> bool {
        let at = self.acknowledged.lock();
        at.is_some_and(|at| at.elapsed() < FRESH)
    }

    fn acknowledged(&self, now: Instant) {
        // As above.
        let mut at = self.acknowledged.lock();
        *at = Some(now);
    }
}

/// What the probes have shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    /// The broker accepts the largest message.
    Fine,
    /// It accepts a small heartbeat, but ends connections over the largest message.
    TooLarge,
    /// It ends connections over the smallest heartbeat.
    Unwelcome,
}

/// The size of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    Largest,
    Smallest,
    /// There are no heartbeats.
    None,
}

impl Size {
    fn smaller(self) -> Self {
        match self {
            Self::Largest => Self::Smallest,
            Self::Smallest | Self::None => Self::None,
        }
    }

    fn larger(self) -> Self {
        match self {
            Self::None => Self::Smallest,
            Self::Smallest | Self::Largest => Self::Largest,
        }
    }
}

/// Decides when a connection sends a heartbeat, and of which size. The first one on each connection is a
/// probe: as large as the largest message, and alone in flight. If connections end over it, the next ones
/// begin with a smaller probe. The broker is blamed only when a connection that has lasted for a while
/// also ends over the larger one. Pure: it sends nothing and has no clock.
#[derive(Debug)]
pub(super) struct Heartbeat {
    size: Size,
    failures: u8,
    /// A connection that lasted has ended over the next larger size: it is not tried again.
    certain: bool,
    /// The connection's first probe, or the second attempt with a larger one, has no PUBACK yet.
    probing: bool,
    /// When the next larger size is tried again on this connection.
    again: Option<Instant>,
    trying_again: bool,
    in_flight: bool,
    next: Instant,
    /// The largest payload in bytes.
    largest: usize,
}

impl Heartbeat {
    pub(super) fn new(largest: usize, now: Instant) -> Self {
        Self {
            size: Size::Largest,
            failures: 0,
            certain: false,
            probing: false,
            again: None,
            trying_again: false,
            in_flight: false,
            next: now,
            largest,
        }
    }

    /// The largest payload of a probe in bytes.
    pub(super) fn largest(&self) -> usize {
        self.largest
    }

    /// A new connection.
    pub(super) fn connected(&mut self, now: Instant) {
        self.probing = self.size != Size::None;
        self.again = (self.size != Size::Largest && !self.certain).then(|| now + LASTING);
        self.in_flight = false;
        self.next = now;
    }

    /// Whether nothing else may be sent now. Everything sent before must have its PUBACK before
    /// [`send`](Self::send).
    pub(super) fn is_probing(&self) -> bool {
        self.probing
    }

    /// When the next heartbeat is due; `None` while one is in flight, or if none are sent.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.in_flight {
            return None;
        }
        let next = (self.size != Size::None).then_some(self.next);
        next.into_iter().chain(self.again).min()
    }

    /// Prepares a heartbeat that is due. If it is time to try the larger size again, it is a probe.
    pub(super) fn prepare(&mut self, now: Instant) {
        if self.again.is_none_or(|again| now < again) {
            return;
        }
        self.again = None;
        self.trying_again = true;
        self.size = self.size.larger();
        self.probing = true;
        self.next = now;
    }

    /// The payload of the next heartbeat, which is sent now: the name, padded with spaces to the size.
    pub(super) fn send(&mut self, name: &str, now: Instant) -> Bytes {
        self.in_flight = true;
        self.next = now + PAUSE;
        let mut payload = name.as_bytes().to_vec();
        if self.probing && self.size == Size::Largest {
            payload.resize(self.largest.max(payload.len()), b' ');
        }
        payload.into()
    }

    /// Notes the PUBACK. Returns what a probe has shown.
    pub(super) fn acknowledged(&mut self, beat: &Beat, now: Instant) -> Option<Finding> {
        self.in_flight = false;
        beat.acknowledged(now);
        if !std::mem::take(&mut self.probing) {
            return None;
        }
        self.failures = 0;
        if self.size == Size::Largest {
            self.trying_again = false;
            return Some(Finding::Fine);
        }
        if std::mem::take(&mut self.trying_again) {
            self.again = Some(now + LASTING);
        }
        self.certain.then_some(Finding::TooLarge)
    }

    /// Notes the end of the connection. `lasted` means that it had been up for long, so the broker may be
    /// a different one next time.
    pub(super) fn disconnected(&mut self, ended_by_broker: bool, lasted: bool) -> Option<Finding> {
        let suspect = self.probing && self.in_flight && ended_by_broker;
        self.in_flight = false;
        self.probing = false;
        if std::mem::take(&mut self.trying_again) && suspect {
            self.size = self.size.smaller();
            self.certain = true;
            return Some(match self.size {
                Size::None => Finding::Unwelcome,
                Size::Smallest | Size::Largest => Finding::TooLarge,
            });
        }
        if lasted {
            self.size = Size::Largest;
            self.failures = 0;
            self.certain = false;
        } else if suspect {
            self.failures += 1;
            if self.failures == FAILURES {
                self.failures = 0;
                self.size = self.size.smaller();
                self.certain = false;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One publisher at a broker that accepts payloads of up to `limit` bytes.
    struct Bench {
        heartbeat: Heartbeat,
        beat: Beat,
        limit: usize,
    }

    impl Bench {
        fn new(limit: usize) -> Self {
            Self {
                heartbeat: Heartbeat::new(10_000, Instant::now()),
                beat: Beat::new("hark-p0".to_owned()),
                limit,
            }
        }

        /// Sends what is due. Returns whether the connection survives, and what was found.
        fn send(&mut self, lasted: bool) -> (bool, Option<Finding>) {
            let now = Instant::now();
            self.heartbeat.prepare(now);
            let payload = self.heartbeat.send(self.beat.name(), now);
            assert_eq!(self.heartbeat.due(), None);
            if payload.len() > self.limit {
                return (false, self.heartbeat.disconnected(true, lasted));
            }
            let found = self.heartbeat.acknowledged(&self.beat, now);
            assert!(!self.heartbeat.is_probing());
            (true, found)
        }

        /// A connection's first heartbeat.
        fn connect(&mut self) -> (bool, Option<Finding>) {
            self.heartbeat.connected(Instant::now());
            if self.heartbeat.due().is_none_or(|due| due > Instant::now()) {
                assert!(!self.heartbeat.is_probing());
                return (true, None);
            }
            assert!(self.heartbeat.is_probing());
            self.send(false)
        }

        /// The next one, at its time, on a connection that has lasted for long by then.
        async fn wait(&mut self) -> (bool, Option<Finding>) {
            let due = self.heartbeat.due().expect("another one");
            tokio::time::advance(due - Instant::now()).await;
            self.send(true)
        }
    }

    const STANDS: (bool, Option<Finding>) = (true, None);
    const ENDS: (bool, Option<Finding>) = (false, None);

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_takes_the_largest_is_fine_and_gets_small_ones_from_then_on() {
        let mut bench = Bench::new(10_000);
        assert_eq!(bench.connect(), (true, Some(Finding::Fine)));
        bench.limit = 100;
        for _ in 0..5 {
            let before = Instant::now();
            assert_eq!(bench.wait().await, STANDS);
            assert_eq!(before.elapsed(), PAUSE);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_below_the_largest_message_is_certain_on_a_connection_that_stood() {
        let mut bench = Bench::new(1_000);
        assert_eq!([bench.connect(), bench.connect()], [ENDS; 2]);
        // A small one passes, twice; then the large one does not.
        assert_eq!(bench.connect(), STANDS);
        assert_eq!(bench.wait().await, STANDS);
        assert_eq!(bench.wait().await, (false, Some(Finding::TooLarge)));
        // It is not tried again until the broker may be a different one.
        assert_eq!(bench.connect(), (true, Some(Finding::TooLarge)));
        for _ in 0..10 {
            assert_eq!(bench.wait().await, STANDS);
        }
        assert_eq!(bench.heartbeat.disconnected(true, true), None);
        bench.limit = 10_000;
        assert_eq!(bench.connect(), (true, Some(Finding::Fine)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_ended_connections_by_chance_is_not_blamed() {
        for ends in 1..=6 {
            let mut bench = Bench::new(0);
            for _ in 0..ends {
                let (_, found) = bench.connect();
                assert_eq!(found, None);
            }
            bench.limit = 10_000;
            let (mut stands, mut found) = bench.connect();
            for _ in 0..10 {
                assert!(stands);
                if found.is_none() {
                    (stands, found) = bench.wait().await;
                }
            }
            assert_eq!(found, Some(Finding::Fine), "after {ends}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_refuses_heartbeats_gets_none_and_events_may_go_on() {
        let mut bench = Bench::new(0);
        for _ in 0..4 {
            assert_eq!(bench.connect(), ENDS);
        }
        assert_eq!(bench.connect(), STANDS);
        assert_eq!(bench.wait().await, (false, Some(Finding::Unwelcome)));
        assert_eq!(bench.connect(), STANDS);
        assert_eq!(bench.heartbeat.due(), None);
        assert!(!bench.beat.is_fresh());
    }

    #[tokio::test(start_paused = true)]
    async fn a_beat_is_fresh_for_ten_seconds() {
        let beat = Beat::new("hark-p0".to_owned());
        assert!(!beat.is_fresh());
        beat.acknowledged(Instant::now());
        tokio::time::advance(FRESH - Duration::from_millis(1)).await;
        assert!(beat.is_fresh());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!beat.is_fresh());
    }
}
