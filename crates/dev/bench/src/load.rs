//! The load generator: one thread, one epoll, any number of streams and publishers.

mod measured;
mod opening;
mod publisher;
mod seldom;
mod stream;
#[cfg(test)]
mod tests;
mod turn;
mod window;

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use crate::checks::Faults;
use crate::dialect::Dialect;
use crate::stamp::{Finder, Stamp};
pub(crate) use measured::Measured;
use opening::Mark;
pub(crate) use opening::{Begin, Opened};
use publisher::Publisher;
use seldom::Seldom;
use stream::Stream;

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
}
