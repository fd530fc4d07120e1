use std::io;
use std::time::{Duration, Instant};

use mio::Token;

use super::stream::Stream;
use super::{Load, Measured, Pace};
use crate::checks::Received;
use crate::dialect::Start;
use crate::histogram::Histogram;
use crate::process::{OwnTime, Share};

/// Connections that are being opened at a time: below every server's backlog.
const CONNECTING: usize = 500;
/// How long streams may take to open, all together.
const OPENING: Duration = Duration::from_secs(60);
/// A connection that took longer has lost its SYN: it is sent again after a second.
pub(super) const SLOW: Duration = Duration::from_millis(900);

/// Where streams begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    Live,
    /// With the newest so many of their channel.
    Newest(u32),
    /// Where their channel was when [`Load::mark`] noted it.
    AtMark,
}

/// How the opening of streams went.
#[derive(Debug, Clone, Default)]
pub(crate) struct Opened {
    pub(crate) took: Duration,
    /// Until the last one had begun to connect.
    pub(crate) connecting: Duration,
    /// The load generator's own time.
    pub(crate) own: Share,
    /// Connections that ended before their stream began.
    pub(crate) refused: u64,
    /// Connections that took longer than 900 ms.
    pub(crate) slow: u64,
    /// From connecting to the beginning of the stream.
    pub(crate) beginning: Histogram,
}

/// A cursor of a channel, and what a listener had received by then.
#[derive(Debug, Clone, Default)]
pub(super) struct Mark {
    pub(super) cursor: String,
    pub(super) received: Vec<u32>,
}

impl Mark {
    pub(super) fn note(&mut self, cursor: Option<String>, received: &Received) {
        if let Some(cursor) = cursor {
            self.cursor = cursor;
            self.received = received.next().to_vec();
        }
    }
}

impl Load<'_> {
    /// Opens further streams, the n-th of the n-th channel and so on around, and
    /// waits until they have begun.
    ///
    /// # Errors
    /// When not all open; at a pace those that are refused are counted instead.
    pub(crate) fn open_streams(
        &mut self,
        count: usize,
        begin: Begin,
        pace: Pace,
    ) -> io::Result<Opened> {
        self.opened = Opened::default();
        let own = OwnTime::read()?;
        let started = Instant::now();
        let mut due = started;
        let (first, open) = (self.streams.len(), self.open);
        let all = first + count;
        self.begun.clear();
        loop {
            let refused = usize::try_from(self.opened.refused).unwrap_or(usize::MAX);
            let settled = self.open - open + refused;
            if settled >= count {
                break;
            }
            let now = Instant::now();
            let mut wait = Duration::from_millis(100);
            match pace {
                Pace::ClosedLoop => {
                    while self.streams.len() < all
                        && self.streams.len() - first - settled < CONNECTING
                    {
                        self.open_stream(begin)?;
                    }
                }
                Pace::PerSecond(rate) => {
                    while self.streams.len() < all && due <= now {
                        self.open_stream(begin)?;
                        due += Duration::from_secs_f64(1.0 / rate);
                    }
                    if self.streams.len() < all {
                        wait = due.saturating_duration_since(now);
                    }
                }
            }
            if self.streams.len() == all && self.opened.connecting.is_zero() {
                self.opened.connecting = started.elapsed();
            }
            self.turn(wait)?;
            let failed = self.opened.refused > 0 && pace == Pace::ClosedLoop;
            if started.elapsed() > OPENING || failed {
                return Err(self.not_opened(self.open - open, first, count, started));
            }
        }
        self.opened.took = started.elapsed();
        self.opened.own = own.elapsed()?;
        Ok(std::mem::take(&mut self.opened))
    }

    fn not_opened(&self, open: usize, first: usize, of: usize, started: Instant) -> io::Error {
        let status = self.streams[first..].iter().find_map(Stream::refusal);
        io::Error::other(format!(
            "{open} of {of} streams opened in {:.1?}, {} ended{}",
            started.elapsed(),
            self.opened.refused,
            status.map_or_else(String::new, |status| format!(", one with status {status}")),
        ))
    }

    /// Opens further streams where their channels were marked, and waits until each has what
    /// was published since.
    pub(crate) fn resume(&mut self, count: usize) -> io::Result<Opened> {
        self.now = Measured::default();
        let own = OwnTime::read()?;
        let started = Instant::now();
        let mut opened = self.open_streams(count, Begin::AtMark, Pace::ClosedLoop)?;
        self.drain()?;
        let last = self.now.last.map(|last| last.duration_since(started));
        opened.took = opened.took.max(last.unwrap_or_default());
        opened.own = own.elapsed()?;
        Ok(opened)
    }

    /// Opens a stream and leaves it as soon as it has begun, so many times. Ends when the time is
    /// over, and returns how many it were.
    pub(crate) fn come_and_go(&mut self, count: u64, time: Duration) -> io::Result<u64> {
        let started = Instant::now();
        let (mut opened, mut left) = (0, 0);
        while left < count && started.elapsed() < time {
            while opened < count && opened - left < CONNECTING as u64 {
                // A slot is used again: a million streams would not fit.
                match self.vacant.pop() {
                    Some(slot) => self.streams[slot] = self.connect(slot, Begin::Live)?,
                    None => self.open_stream(Begin::Live)?,
                }
                opened += 1;
            }
            self.begun.clear();
            self.turn(Duration::from_millis(100))?;
            if self.opened.refused > 0 {
                let (open, of) = (left, opened);
                return Err(io::Error::other(format!(
                    "{} of {of} streams were refused, {open} had opened",
                    self.opened.refused
                )));
            }
            for slot in std::mem::take(&mut self.begun) {
                self.leave(slot);
                self.vacant.push(slot);
                left += 1;
            }
        }
        self.leave_all();
        Ok(left)
    }

    /// Notes where each channel is, as a listener knows it that leaves now.
    pub(crate) fn mark(&mut self) -> io::Result<()> {
        self.marking = true;
        self.open_streams(self.channels.len(), Begin::Live, Pace::ClosedLoop)?;
        self.warm_up()?;
        self.marking = false;
        self.leave_all();
        let marks = self.marks.iter();
        match marks.filter(|mark| mark.cursor.is_empty()).count() {
            0 => Ok(()),
            none => Err(io::Error::other(format!(
                "{none} streams did not tell a cursor"
            ))),
        }
    }

    fn leave_all(&mut self) {
        for slot in 0..self.streams.len() {
            self.leave(slot);
        }
    }

    fn leave(&mut self, slot: usize) {
        let stream = &mut self.streams[slot];
        if stream.is_open() {
            self.audience[stream.channel] -= 1;
            stream.connection.close();
        }
    }

    fn open_stream(&mut self, begin: Begin) -> io::Result<()> {
        let stream = self.connect(self.streams.len(), begin)?;
        self.streams.push(stream);
        Ok(())
    }

    fn connect(&mut self, slot: usize, begin: Begin) -> io::Result<Stream> {
        let channel = slot % self.channels.len();
        let mark = &self.marks[channel];
        let no_start = || io::Error::other("this server cannot start a stream there");
        let start = match begin {
            Begin::Live => Start::Live,
            Begin::Newest(count) => Start::Newest(count),
            Begin::AtMark => Start::After(&mark.cursor),
        };
        let request = self.target.dialect.listen(&self.channels[channel], start);
        let request = request.ok_or_else(no_start)?;
        let sent = self.sent.iter().map(|sent| sent[channel]);
        let next: Vec<u32> = match begin {
            Begin::AtMark => mark.received.clone(),
            Begin::Newest(back) => sent.map(|sent| sent.saturating_sub(back)).collect(),
            Begin::Live => sent.collect(),
        };
        let received = Received::starting_at(next);
        let sent = self.sent.iter().map(|sent| sent[channel]);
        self.now.expected += received.lost(sent);
        let (token, registry) = (Token(slot), self.poll.registry());
        let stream = Stream::connect(registry, token, self.listen, &request, channel, received)?;
        self.audience[channel] += 1;
        Ok(stream)
    }
}
