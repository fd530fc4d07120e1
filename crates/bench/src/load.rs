//! The load generator: one thread, one epoll, any number of streams and publishers.

mod measured;
mod publisher;
mod stream;

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use crate::checks::{Faults, Verdict};
use crate::dialect::{Dialect, Ready, Start};
use crate::process::OwnTime;
use crate::stamp::{Finder, Stamp};
pub(crate) use measured::Measured;
use publisher::{Answer, Publisher};
use stream::{Heard, Stream};

/// Connections that are being opened at a time: below every server's backlog.
const CONNECTING: usize = 500;
/// How long streams may take to open, all together.
const OPENING: Duration = Duration::from_secs(60);
/// How long a first message may take to reach every stream.
const FIRST: Duration = Duration::from_secs(20);
/// Without a delivery for so long, what is outstanding is lost …
const SILENCE: Duration = Duration::from_secs(3);
/// … and a server that still delivers after so long has no figures.
const DRAIN: Duration = Duration::from_secs(180);

/// Where the load goes.
pub(crate) struct Target {
    pub(crate) listen: SocketAddr,
    pub(crate) publish: SocketAddr,
    pub(crate) dialect: Box<dyn Dialect>,
}

/// How publishers publish.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pace {
    /// Each as soon as its last post is answered.
    ClosedLoop,
    /// So many posts a second, all together.
    PerSecond(f64),
}

/// Streams and publishers, connected to one server.
pub(crate) struct Load<'a> {
    target: &'a Target,
    channels: Vec<String>,
    payload: usize,
    poll: Poll,
    events: Events,
    begin: Instant,
    finder: Finder,
    buffer: Vec<u8>,
    streams: Vec<Stream>,
    publishers: Vec<Publisher>,
    /// How many each publisher has sent to each channel, and were accepted.
    sent: Vec<Vec<u32>>,
    /// Streams of each channel that are open.
    audience: Vec<u32>,
    /// Streams that have opened.
    open: usize,
    next_channel: usize,
    now: Measured,
}

impl<'a> Load<'a> {
    pub(crate) fn new(
        target: &'a Target,
        channels: Vec<String>,
        payload: usize,
    ) -> io::Result<Self> {
        Ok(Self {
            target,
            payload,
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            begin: Instant::now(),
            finder: Finder::new(),
            buffer: vec![0; 256 << 10],
            streams: Vec::new(),
            publishers: Vec::new(),
            sent: Vec::new(),
            audience: vec![0; channels.len()],
            open: 0,
            next_channel: 0,
            now: Measured::default(),
            channels,
        })
    }

    /// Opens further streams, the n-th of the n-th channel and so on around, and
    /// waits until they have begun. Returns how long that took.
    pub(crate) fn open_streams(&mut self, count: usize, start: Start) -> io::Result<Duration> {
        let begin = Instant::now();
        let (first, all) = (self.streams.len(), self.streams.len() + count);
        while self.open < all {
            while self.streams.len() < all && self.streams.len() - self.open < CONNECTING {
                self.open_stream(start)?;
            }
            self.turn(Duration::from_millis(100))?;
            if begin.elapsed() > OPENING || self.now.faults.ended > 0 {
                let status = self.streams[first..].iter().find_map(Stream::refusal);
                return Err(io::Error::other(format!(
                    "{} of {count} streams opened in {:.1?}, {} ended{}",
                    self.open - first,
                    begin.elapsed(),
                    self.now.faults.ended,
                    status.map_or_else(String::new, |status| format!(", one with status {status}")),
                )));
            }
        }
        Ok(begin.elapsed())
    }

    fn open_stream(&mut self, start: Start) -> io::Result<()> {
        let index = self.streams.len();
        let channel = index % self.channels.len();
        let request = self
            .target
            .dialect
            .listen(&self.channels[channel], start)
            .ok_or_else(|| io::Error::other("this server cannot start a stream there"))?;
        let back = match start {
            Start::Live => 0,
            Start::Newest(count) => count,
        };
        let sent = self.sent.iter().map(|sent| sent[channel]);
        let expected = sent.map(|sent| sent.saturating_sub(back)).collect();
        let registry = self.poll.registry();
        let token = Token(index);
        let address = self.target.listen;
        let stream = Stream::connect(registry, token, address, &request, channel, expected)?;
        self.streams.push(stream);
        self.audience[channel] += 1;
        self.now.expected += u64::from(back);
        Ok(())
    }

    /// Connects further publishers.
    pub(crate) fn add_publishers(&mut self, count: usize) -> io::Result<()> {
        for _ in 0..count {
            let token = Token(usize::MAX / 2 + self.publishers.len());
            let publisher = Publisher::connect(self.poll.registry(), token, self.target.publish)?;
            self.publishers.push(publisher);
            self.sent.push(vec![0; self.channels.len()]);
        }
        Ok(())
    }

    /// Publishes so many messages to each channel, for streams that begin before them.
    pub(crate) fn publish_before(&mut self, count: u32) -> io::Result<()> {
        let begin = Instant::now();
        let mut left = self.channels.len() * count as usize;
        while left > 0 || self.posting() {
            while left > 0 && self.publish(None)? {
                left -= 1;
            }
            self.turn(Duration::from_millis(100))?;
            if self.now.refused > 0 || begin.elapsed() > OPENING {
                return Err(io::Error::other(
                    "the messages to begin with were not accepted",
                ));
            }
        }
        Ok(())
    }

    /// Publishes one message to each channel, and waits until each stream has it.
    pub(crate) fn warm_up(&mut self) -> io::Result<()> {
        let begin = Instant::now();
        let mut left = self.channels.len();
        while left > 0 || self.posting() || self.now.outstanding() > 0 {
            while left > 0 && self.publish(None)? {
                left -= 1;
            }
            self.turn(Duration::from_millis(100))?;
            if self.now.refused > 0 {
                return Err(io::Error::other("a post was refused"));
            }
            if begin.elapsed() > FIRST {
                return Err(io::Error::other(format!(
                    "the first message of each channel did not reach its streams in {FIRST:?}: {} posts accepted, {} of {} delivered",
                    self.now.posted, self.now.delivered, self.now.expected,
                )));
            }
        }
        Ok(())
    }

    /// Publishes for the length of the window, then waits for what is outstanding.
    pub(crate) fn measure(&mut self, pace: Pace, window: Duration) -> io::Result<Measured> {
        self.now = Measured::default();
        let missing = self.missing();
        let own = OwnTime::read()?;
        let begin = Instant::now();
        let mut due = begin;
        loop {
            let now = Instant::now();
            if now.duration_since(begin) >= window {
                break;
            }
            let wait = match pace {
                Pace::ClosedLoop => {
                    while self.publish(None)? {}
                    Duration::from_millis(100)
                }
                Pace::PerSecond(rate) => {
                    while due <= now && self.publish(Some(due))? {
                        due += Duration::from_secs_f64(1.0 / rate);
                    }
                    due.saturating_duration_since(now)
                }
            };
            self.turn(wait.min(window - now.duration_since(begin)))?;
        }
        self.now.own = own.elapsed()?;
        self.now.window = begin.elapsed();
        self.drain()?;
        self.now.elapsed = self.now.last.unwrap_or(begin).duration_since(begin);
        self.now.faults.lost = self.missing().saturating_sub(missing);
        Ok(std::mem::take(&mut self.now))
    }

    /// Reads what comes for so long, without publishing.
    pub(crate) fn idle(&mut self, time: Duration) -> io::Result<()> {
        let begin = Instant::now();
        while let Some(left) = time
            .checked_sub(begin.elapsed())
            .filter(|left| !left.is_zero())
        {
            self.turn(left)?;
        }
        Ok(())
    }

    /// What has gone wrong since the streams were opened.
    pub(crate) fn faults(&self) -> Faults {
        Faults {
            lost: self.missing(),
            ..self.now.faults
        }
    }

    fn drain(&mut self) -> io::Result<()> {
        let begin = Instant::now();
        while self.posting() || self.now.outstanding() > 0 {
            let last = self.now.last.unwrap_or(begin).max(begin);
            if last.elapsed() > SILENCE {
                break;
            }
            if begin.elapsed() > DRAIN {
                return Err(io::Error::other(format!(
                    "{DRAIN:?} after the last post {} of {} events are still under way",
                    self.now.outstanding(),
                    self.now.expected,
                )));
            }
            self.turn(Duration::from_millis(20))?;
        }
        Ok(())
    }

    fn posting(&self) -> bool {
        self.publishers.iter().any(|publisher| !publisher.is_idle())
    }

    /// What was accepted and is not on its streams, of everything ever sent.
    fn missing(&self) -> u64 {
        let open = self.streams.iter().filter(|stream| stream.is_open());
        open.map(|stream| {
            let sent = self.sent.iter().map(|sent| sent[stream.channel]);
            stream.received.lost(sent)
        })
        .sum()
    }

    /// Publishes to the next channel through a publisher that is idle; false when none is.
    ///
    /// A post that had to wait for one counts from when it was due: a slow server
    /// must not slow down the clock that measures it.
    fn publish(&mut self, due: Option<Instant>) -> io::Result<bool> {
        let Some(index) = self.publishers.iter().position(Publisher::is_idle) else {
            self.now.waited = true;
            return Ok(false);
        };
        let waited = std::mem::take(&mut self.now.waited);
        let channel = self.next_channel;
        self.next_channel = (channel + 1) % self.channels.len();
        let sent = due.filter(|_| waited).unwrap_or_else(Instant::now);
        let stamp = Stamp {
            publisher: u16::try_from(index).map_err(io::Error::other)?,
            channel: u32::try_from(channel).map_err(io::Error::other)?,
            seq: self.sent[index][channel],
            sent: u64::try_from(sent.duration_since(self.begin).as_nanos())
                .map_err(io::Error::other)?,
        };
        let payload = stamp.payload(self.payload);
        let name = &self.channels[channel];
        let request = self.target.dialect.publish(name, &payload);
        let publisher = &mut self.publishers[index];
        publisher.post(request, channel)?;
        Ok(true)
    }

    fn turn(&mut self, timeout: Duration) -> io::Result<()> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            polled => polled?,
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            if let Some(index) = event.token().0.checked_sub(usize::MAX / 2) {
                self.turn_publisher(index)?;
            } else {
                self.turn_stream(event.token().0)?;
            }
        }
        self.events = events;
        Ok(())
    }

    fn turn_publisher(&mut self, index: usize) -> io::Result<()> {
        let publisher = &mut self.publishers[index];
        let advanced = publisher.advance(&mut self.buffer).map_err(|error| {
            io::Error::other(format!("a publisher to {}: {error}", self.target.publish))
        });
        match advanced? {
            None => {}
            Some(Answer {
                channel,
                accepted: true,
                took,
            }) => {
                self.sent[index][channel] += 1;
                self.now.posted += 1;
                self.now.expected += u64::from(self.audience[channel]);
                self.now.post.record(took);
                if self.audience[channel] == 0 {
                    self.now.last = Some(Instant::now());
                }
            }
            Some(_) => self.now.refused += 1,
        }
        Ok(())
    }

    fn turn_stream(&mut self, index: usize) -> io::Result<()> {
        let stream = &mut self.streams[index];
        let (measured, begin, ready) = (&mut self.now, self.begin, self.target.dialect.ready());
        let (mut opened, mut now) = (false, None);
        let (received, channel, was_open) =
            (&mut stream.received, stream.channel, stream.has_begun);
        let heard = stream.connection.advance(&mut self.buffer, |event| {
            opened |= match ready {
                Ready::Head => false,
                Ready::Event(name) => event.name == name.as_bytes(),
                Ready::AnyEvent => true,
            };
            for stamp in self.finder.stamps(&event.data) {
                if stamp.channel as usize != channel {
                    measured.faults.misdirected += 1;
                    continue;
                }
                let verdict = received.take(stamp);
                if verdict == Verdict::Doubled {
                    measured.faults.doubled += 1;
                    continue;
                }
                measured.faults.disordered += u64::from(verdict == Verdict::Late);
                measured.delivered += 1;
                // One reading of the clock for all that one read brought.
                let now = *now.get_or_insert_with(Instant::now);
                let age = now.duration_since(begin).as_nanos();
                let age = u64::try_from(age).unwrap_or(u64::MAX);
                measured.latency.record(age.saturating_sub(stamp.sent));
            }
        })?;
        measured.last = now.or(measured.last);
        match heard {
            Heard::Nothing => {}
            Heard::Head => opened |= ready == Ready::Head,
            Heard::End => {
                self.audience[channel] -= 1;
                measured.faults.ended += 1;
                stream.connection.close();
            }
        }
        if opened && !was_open {
            stream.has_begun = true;
            self.open += 1;
        }
        Ok(())
    }
}

impl Faults {
    /// Whether every stream got everything once and in order.
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::Simple;

    fn floor() -> Target {
        let listener = crate::floor::listen().unwrap();
        let address = listener.local_addr().unwrap();
        // Ends with the process of the test.
        std::thread::spawn(|| crate::floor::run(listener));
        Target {
            listen: address,
            publish: address,
            dialect: Box::new(Simple {
                listen: "/sub",
                publish: "/pub",
            }),
        }
    }

    #[test]
    fn everything_that_is_published_is_checked_on_every_stream() {
        let target = floor();
        let channels = ["a", "b", "c"].map(str::to_owned).to_vec();
        let mut load = Load::new(&target, channels, 100).unwrap();
        load.open_streams(7, Start::Live).unwrap();
        load.add_publishers(4).unwrap();
        load.warm_up().unwrap();
        let window = Duration::from_millis(20);
        for pace in [Pace::ClosedLoop, Pace::PerSecond(500.0)] {
            let measured = load.measure(pace, window).unwrap();
            assert!(measured.faults.is_none(), "{:?}", measured.faults);
            assert!(measured.posted > 0);
            assert_eq!(measured.delivered, measured.expected);
            assert!(measured.latency.quantile(1.0).is_some());
        }
    }

    #[test]
    fn what_no_stream_got_is_lost() {
        let target = floor();
        let mut load = Load::new(&target, vec!["a".to_owned()], 100).unwrap();
        load.open_streams(2, Start::Live).unwrap();
        load.add_publishers(1).unwrap();
        load.warm_up().unwrap();
        // As if three posts had been accepted that the server then forgot.
        load.sent[0][0] += 3;
        assert_eq!(load.faults().lost, 6);
    }

    #[test]
    fn a_server_that_cannot_begin_there_is_an_error() {
        let target = floor();
        let mut load = Load::new(&target, vec!["a".to_owned()], 100).unwrap();
        assert!(load.open_streams(1, Start::Newest(1)).is_err());
    }
}
