//! The load generator: one thread, one epoll, any number of streams and publishers.

mod measured;
mod opening;
mod publisher;
mod seldom;
mod stream;
mod window;

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use crate::checks::{Faults, Verdict};
use crate::dialect::{Dialect, Ready};
use crate::stamp::{Finder, Stamp};
pub(crate) use measured::Measured;
pub(crate) use opening::{Begin, Opened};
use opening::{Mark, SLOW};
use publisher::{Answer, Publisher};
use seldom::Seldom;
use stream::{Heard, Stream};

/// Where the load goes.
pub(crate) struct Target {
    pub(crate) listen: SocketAddr,
    pub(crate) publish: SocketAddr,
    pub(crate) dialect: Box<dyn Dialect>,
}

/// How publishers publish, or streams open.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pace {
    /// Each as soon as its last post is answered; streams, as soon as not too many are being opened.
    ClosedLoop,
    /// So many a second, all together.
    PerSecond(f64),
}

/// Streams and publishers, connected to one server.
pub(crate) struct Load<'a> {
    target: &'a Target,
    /// Where streams are opened: at the target, or at another node of the same system.
    listen: SocketAddr,
    /// Where publishers connect, likewise.
    publish: SocketAddr,
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
    /// Streams that have begun, ever.
    open: usize,
    /// The slots of those that have begun since this was looked at.
    begun: Vec<usize>,
    /// Slots whose stream was left.
    vacant: Vec<usize>,
    opened: Opened,
    /// What had not arrived when the window began.
    missing_before: u64,
    /// For each channel.
    marks: Vec<Mark>,
    /// Marks are being noted.
    marking: bool,
    seldom: Option<Seldom>,
    next_channel: usize,
    /// Groups of publishers, each of which has channels of its own.
    groups: usize,
    now: Measured,
}

impl<'a> Load<'a> {
    pub(crate) fn new(
        target: &'a Target,
        channels: Vec<String>,
        payload: usize,
    ) -> io::Result<Self> {
        Ok(Self {
            listen: target.listen,
            publish: target.publish,
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
            begun: Vec::new(),
            vacant: Vec::new(),
            opened: Opened::default(),
            missing_before: 0,
            marks: vec![Mark::default(); channels.len()],
            marking: false,
            seldom: None,
            next_channel: 0,
            groups: 1,
            now: Measured::default(),
            channels,
        })
    }

    /// Opens further streams at another node of the same system.
    pub(crate) fn listen_at(&mut self, node: SocketAddr) {
        self.listen = node;
    }

    /// Connects further publishers to another node of the same system.
    pub(crate) fn publish_at(&mut self, node: SocketAddr) {
        self.publish = node;
    }

    /// Bytes that the streams have received, of heads and of events.
    pub(crate) fn received(&self) -> u64 {
        let streams = self.streams.iter();
        streams.map(|stream| stream.connection.received()).sum()
    }

    /// Lets the first publishers, the next and so on, in so many groups, post to channels of their
    /// own. The number of channels is a multiple of it.
    pub(crate) fn separate(&mut self, groups: usize) {
        self.groups = groups;
    }

    /// Connects further publishers.
    pub(crate) fn add_publishers(&mut self, count: usize) -> io::Result<()> {
        for _ in 0..count {
            let token = Token(usize::MAX / 2 + self.publishers.len());
            let publisher = Publisher::connect(self.poll.registry(), token, self.publish)?;
            self.publishers.push(publisher);
            self.sent.push(vec![0; self.channels.len()]);
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
        let group = index * self.groups / self.publishers.len();
        let channel = self.next_channel - self.next_channel % self.groups + group;
        self.next_channel = (self.next_channel + 1) % self.channels.len();
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

    /// Reads each stream only so often from now on, whatever arrives: that costs the load generator
    /// little, and takes the delay out of what can be measured.
    pub(crate) fn read_every(&mut self, interval: Duration) {
        self.seldom = Some(Seldom::every(interval));
    }

    fn turn(&mut self, timeout: Duration) -> io::Result<()> {
        if let Some(mut seldom) = self.seldom.take() {
            let turned = self.turn_seldom(&mut seldom, timeout);
            self.seldom = Some(seldom);
            return turned;
        }
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

    fn turn_stream(&mut self, slot: usize) -> io::Result<()> {
        let stream = &mut self.streams[slot];
        let (measured, begin, dialect) = (&mut self.now, self.begin, &self.target.dialect);
        let (ready, finder) = (dialect.ready(), &self.finder);
        let (mut opened, mut now) = (false, None);
        let (received, channel, was_open) =
            (&mut stream.received, stream.channel, stream.has_begun);
        let mut mark = self.marking.then(|| &mut self.marks[channel]);
        let was_connecting = stream.connection.is_connecting();
        let heard = stream.connection.advance(&mut self.buffer, |event| {
            // A block without data is no event.
            let Some(data) = &event.data else { return };
            opened |= match ready {
                Ready::Head => false,
                Ready::Event(name) => event.name == name.as_bytes(),
                Ready::AnyEvent => true,
            };
            for stamp in finder.stamps(data) {
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
                if measured.times_deliveries {
                    let age = now.duration_since(begin).as_nanos();
                    let age = u64::try_from(age).unwrap_or(u64::MAX);
                    measured.latency.record(age.saturating_sub(stamp.sent));
                }
            }
            if let Some(mark) = &mut mark {
                mark.note(dialect.cursor(&event), received);
            }
        })?;
        measured.last = now.or(measured.last);
        if was_connecting && !stream.connection.is_connecting() {
            self.opened.slow += u64::from(stream.connected.elapsed() > SLOW);
        }
        match heard {
            Heard::Nothing => {}
            Heard::Head => opened |= ready == Ready::Head,
            Heard::End => {
                self.audience[channel] -= 1;
                if was_open || opened {
                    measured.faults.ended += 1;
                } else {
                    self.opened.refused += 1;
                }
                stream.connection.close();
            }
        }
        if opened && !was_open {
            stream.has_begun = true;
            let took = stream.connected.elapsed().as_nanos();
            let took = u64::try_from(took).unwrap_or(u64::MAX);
            self.opened.beginning.record(took);
            self.begun.push(slot);
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
        load.open_streams(7, Begin::Live, Pace::ClosedLoop).unwrap();
        load.add_publishers(4).unwrap();
        load.warm_up().unwrap();
        let window = Duration::from_millis(20);
        for pace in [
            Pace::ClosedLoop,
            Pace::PerSecond(500.0),
            Pace::PerSecond(900.0),
        ] {
            if pace == Pace::PerSecond(900.0) {
                load.read_every(Duration::from_millis(5));
            }
            load.publish_for(pace, window).unwrap();
            let measured = load.finish(pace).unwrap();
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
        load.open_streams(2, Begin::Live, Pace::ClosedLoop).unwrap();
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
        let opened = load.open_streams(1, Begin::Newest(1), Pace::ClosedLoop);
        assert!(opened.is_err());
    }

    #[test]
    fn streams_come_and_go() {
        let target = floor();
        let mut load = Load::new(&target, vec!["a".to_owned()], 100).unwrap();
        let time = Duration::from_secs(60);
        assert_eq!(load.come_and_go(1_300, time).unwrap(), 1_300);
        assert_eq!(load.come_and_go(1_300, Duration::ZERO).unwrap(), 0);
        assert!(load.faults().is_none());
        load.open_streams(1, Begin::Live, Pace::PerSecond(1e6))
            .unwrap();
    }

    #[test]
    fn a_server_without_cursors_cannot_be_resumed() {
        let target = floor();
        let mut load = Load::new(&target, vec!["a".to_owned()], 100).unwrap();
        load.add_publishers(1).unwrap();
        let error = load.mark().unwrap_err();
        assert!(error.to_string().contains("cursor"), "{error}");
    }
}
