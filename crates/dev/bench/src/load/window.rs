use std::io;
use std::time::{Duration, Instant};

use super::{Load, Measured, Pace};
use crate::process::OwnTime;

/// How long posts may take that are made before streams open.
const BEFORE: Duration = Duration::from_secs(60);
/// How long a first message may take to reach every stream.
const FIRST: Duration = Duration::from_secs(20);
/// Without a delivery for so long, what is outstanding is lost …
const SILENCE: Duration = Duration::from_secs(3);
/// … and a server that still delivers after so long has no figures.
const DRAIN: Duration = Duration::from_secs(60);

impl Load<'_> {
    /// Publishes so many messages to each channel, for streams that begin before them.
    pub(crate) fn publish_before(&mut self, count: u32) -> io::Result<()> {
        let begin = Instant::now();
        let mut left = self.channels.len() * count as usize;
        while left > 0 || self.posting() {
            while left > 0 && self.publish(None)? {
                left -= 1;
            }
            self.turn(Duration::from_millis(100))?;
            if self.now.refused > 0 || begin.elapsed() > BEFORE {
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

    /// Publishes for the length of the window. [`Load::finish`] comes next.
    pub(crate) fn publish_for(&mut self, pace: Pace, window: Duration) -> io::Result<()> {
        self.now = Measured {
            times_deliveries: true,
            ..Measured::default()
        };
        self.missing_before = self.missing();
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
                    match due.saturating_duration_since(now) {
                        // No publisher is idle: the answer that it waits for wakes it up.
                        Duration::ZERO => Duration::from_millis(100),
                        wait => wait,
                    }
                }
            };
            self.turn(wait.min(window - now.duration_since(begin)))?;
        }
        self.now.own = own.elapsed()?;
        self.now.window = begin.elapsed();
        self.now.in_window = self.now.delivered;
        Ok(())
    }

    /// Waits for what is outstanding.
    pub(crate) fn finish(&mut self, pace: Pace) -> io::Result<Measured> {
        // What a closed loop piled up is told by how long it takes to drain: its age would
        // only be the length of the window.
        self.now.times_deliveries = pace != Pace::ClosedLoop;
        let end = Instant::now();
        self.drain()?;
        self.now.drain = self.now.last.map_or(Duration::ZERO, |last| last - end);
        self.now.faults.lost = self.missing().saturating_sub(self.missing_before);
        Ok(std::mem::take(&mut self.now))
    }

    /// Reads and checks what comes for so long.
    pub(crate) fn listen_for(&mut self, window: Duration) -> io::Result<Measured> {
        self.now = Measured::default();
        let own = OwnTime::read()?;
        let begin = Instant::now();
        self.idle(window)?;
        self.now.own = own.elapsed()?;
        self.now.window = begin.elapsed();
        self.now.in_window = self.now.delivered;
        self.now.faults.lost = self.missing();
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

    pub(super) fn drain(&mut self) -> io::Result<()> {
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
}
