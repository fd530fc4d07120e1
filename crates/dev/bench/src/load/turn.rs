//! What arrives: events on the streams, answers for the publishers.

use std::io;
use std::time::{Duration, Instant};

use mio::Events;

use super::Load;
use super::opening::SLOW;
use super::publisher::Answer;
use super::stream::Heard;
use crate::checks::Verdict;
use crate::dialect::Ready;

impl Load<'_> {
    pub(super) fn turn(&mut self, timeout: Duration) -> io::Result<()> {
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

    pub(super) fn turn_publisher(&mut self, index: usize) -> io::Result<()> {
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

    pub(super) fn turn_stream(&mut self, slot: usize) -> io::Result<()> {
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
