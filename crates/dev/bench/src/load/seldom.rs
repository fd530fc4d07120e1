use std::io;
use std::time::{Duration, Instant};

use mio::Events;

use super::Load;

/// How long the load generator sleeps, whatever arrives meanwhile.
const NAP: Duration = Duration::from_millis(2);

/// Streams that have something to read, and when they are read.
pub(super) struct Seldom {
    interval: Duration,
    last: Instant,
    waiting: Vec<usize>,
    /// Whether a stream is among those that wait.
    waits: Vec<bool>,
}

impl Seldom {
    pub(super) fn every(interval: Duration) -> Self {
        Self {
            interval,
            last: Instant::now(),
            waiting: Vec::new(),
            waits: Vec::new(),
        }
    }

    fn note(&mut self, slot: usize) {
        if self.waits.len() <= slot {
            self.waits.resize(slot + 1, false);
        }
        if !std::mem::replace(&mut self.waits[slot], true) {
            self.waiting.push(slot);
        }
    }

    fn due(&mut self) -> Vec<usize> {
        if self.last.elapsed() < self.interval {
            return Vec::new();
        }
        self.last = Instant::now();
        self.waits.clear();
        std::mem::take(&mut self.waiting)
    }
}

impl Load<'_> {
    /// Sleeps instead of waiting, as each arrival would wake it, then takes the answers to posts,
    /// and the streams when it is time.
    pub(super) fn turn_seldom(&mut self, seldom: &mut Seldom, wait: Duration) -> io::Result<()> {
        std::thread::sleep(wait.min(NAP));
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        loop {
            self.poll.poll(&mut events, Some(Duration::ZERO))?;
            for event in &events {
                match event.token().0.checked_sub(usize::MAX / 2) {
                    Some(publisher) => self.turn_publisher(publisher)?,
                    None => seldom.note(event.token().0),
                }
            }
            if events.iter().count() < events.capacity() {
                break;
            }
        }
        self.events = events;
        for slot in seldom.due() {
            self.turn_stream(slot)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_read_once_for_all_that_arrived() {
        let mut seldom = Seldom::every(Duration::ZERO);
        [3, 0, 3, 0].into_iter().for_each(|slot| seldom.note(slot));
        assert_eq!(seldom.due(), [3, 0]);
        assert!(seldom.due().is_empty());
        seldom.note(3);
        assert_eq!(seldom.due(), [3]);
        let mut seldom = Seldom::every(Duration::MAX);
        seldom.note(1);
        assert!(seldom.due().is_empty());
    }
}
