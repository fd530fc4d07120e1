//! What a client and the router say to each other, after CONNECT.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::FutureExt as _;
use rumqttd::Notification;
use rumqttd::protocol::Packet;
use tokio::io::AsyncRead;
use tokio::time::{Instant, sleep_until, timeout};

use crate::clients::Client;
use crate::connection::{Connection, End, READ, read_some};
use crate::guard::{Admitted, Guard};
use crate::link::Link;
use crate::outbox::{STALL, Sink};
use crate::wire;

/// Bytes of an unfinished packet that count as a sign of life: a client that sends a large one can
/// send no PINGREQ meanwhile, and one that sends a byte a minute sends none at all.
const HEARD: usize = 1000;

/// When the router owes a client so many acknowledgements, it is given [`ANSWER_TIME`] for them
/// before the client is read from again: as long as there is something to take in, it takes that,
/// five hundred times, and keeps all acknowledgements meanwhile. Not more time, as it may want to hear
/// the client first.
const MOST_UNANSWERED: usize = 1000;
const ANSWER_TIME: Duration = Duration::from_millis(10);

/// Carries packets both ways. Neither way waits for the other: a client that takes little is heard
/// all the same.
pub(crate) struct Conversation<'a, R, W> {
    link: Link,
    connection: Connection<R, W>,
    client: &'a mut Client,
    guard: Guard,
    to_router: Vec<Packet>,
    /// A batch of the router, of which the client has not been written everything. There is no
    /// other before it has been.
    batch: VecDeque<Notification>,
    /// The router waits to hear that there is room again.
    unscheduled: bool,
    /// Packets for which the router owes an acknowledgement, since it last said anything.
    unanswered: usize,
    /// Bytes that were read while the client did not take what it is sent.
    ahead: usize,
    /// When the client was last heard, and how much it has sent since then.
    heard: Instant,
    unfinished: usize,
}

enum Farewell {
    Said,
    NotYet,
}

impl<'a, R: AsyncRead + Unpin, W: Sink> Conversation<'a, R, W> {
    pub(crate) fn new(
        connection: Connection<R, W>,
        link: Link,
        guard: Guard,
        client: &'a mut Client,
    ) -> Self {
        Self {
            link,
            connection,
            client,
            guard,
            to_router: Vec::new(),
            batch: VecDeque::new(),
            unscheduled: false,
            unanswered: 0,
            ahead: 0,
            heard: Instant::now(),
            unfinished: 0,
        }
    }

    /// Until the client says DISCONNECT. It may be silent for `silence`.
    pub(crate) async fn run(&mut self, silence: Option<Duration>) -> Result<(), End> {
        let now = Instant::now();
        let silent = sleep_until(now + silence.unwrap_or_default());
        tokio::pin!(silent);
        let stalled = sleep_until(now + STALL);
        tokio::pin!(stalled);
        loop {
            if !self.batch.is_empty() {
                self.unanswered = 0;
            }
            // What came with CONNECT is looked at first.
            let farewell = self.take().await?;
            self.fill().await?;
            if let Farewell::Said = farewell {
                return Ok(());
            }
            let may_read = self.may_read();
            let Connection {
                reader,
                sink,
                inbox,
                outbox,
                ..
            } = &mut self.connection;
            tokio::select! {
                // What has come counts before a time that has passed.
                biased;
                read = read_some(reader, inbox), if may_read => {
                    let read = read?;
                    self.ahead += read;
                    self.unfinished += read;
                    if self.batch.is_empty() && !outbox.is_stuck() {
                        // A client that sends without pause is answered as well.
                        let received = self.link.receive(&mut self.batch);
                        if self.unanswered < MOST_UNANSWERED {
                            received.now_or_never().transpose()?;
                        } else {
                            // Nothing within that time: the client is read from again.
                            timeout(ANSWER_TIME, received).await.ok().transpose()?;
                        }
                    }
                }
                written = outbox.write(sink), if outbox.is_stuck() => written?,
                // One that is not heard takes what there is, and is heard before there is more.
                received = self.link.receive(&mut self.batch),
                    if self.batch.is_empty() && may_read =>
                {
                    received?;
                }
                () = &mut stalled, if outbox.is_stuck() => {
                    let until = outbox.stalls_at(sink)?;
                    if until <= Instant::now() {
                        return Err(End::Stalled);
                    }
                    stalled.as_mut().reset(until);
                }
                () = &mut silent, if silence.is_some() => {
                    let mut until = self.heard + silence.unwrap_or_default();
                    if !may_read {
                        // Nobody has listened.
                        until = Instant::now() + silence.unwrap_or_default();
                    } else if until <= Instant::now() {
                        return Err(End::Silent);
                    }
                    silent.as_mut().reset(until);
                }
            }
        }
    }

    /// A client that does not take what it is sent is heard only so far, as the router may have an
    /// answer for each of its packets.
    fn may_read(&mut self) -> bool {
        if self.batch.is_empty() && self.connection.outbox.is_empty() {
            self.ahead = 0;
        }
        self.ahead < READ
    }

    /// Hands the packets that were read to the router, those before a refused one, too.
    async fn take(&mut self) -> Result<Farewell, End> {
        let farewell = self.read_packets();
        self.hand_over().await?;
        farewell
    }

    /// Says a last word to the router.
    pub(crate) async fn say(&mut self, packet: Packet) -> Result<(), End> {
        self.to_router.push(packet);
        self.hand_over().await
    }

    /// What costs the router much goes in small parts, by turns with the others of this address.
    async fn hand_over(&mut self) -> Result<(), End> {
        let turns = self.guard.pace();
        let turns = turns.filter(|(costs, _)| !costs.are_little(&self.to_router));
        let Some((costs, turn)) = turns else {
            return Ok(self.link.send(&mut self.to_router).await?);
        };
        while !self.to_router.is_empty() {
            let part = costs.in_a_turn(&self.to_router);
            let _turn = turn.lock().await;
            let mut part = self.to_router.drain(..part).collect();
            self.link.send(&mut part).await?;
            self.link.taken().await;
        }
        Ok(())
    }

    fn read_packets(&mut self) -> Result<Farewell, End> {
        let Connection {
            inbox,
            outbox,
            max_packet,
            ..
        } = &mut self.connection;
        if self.unfinished >= HEARD {
            self.unfinished = 0;
            self.heard = Instant::now();
        }
        while let Some(read) = wire::read(inbox, *max_packet).map_err(End::Refused)? {
            if self.unfinished > 0 {
                self.unfinished = 0;
                self.heard = Instant::now();
            }
            if matches!(read.packet, Packet::Publish(..) | Packet::Subscribe(..)) {
                self.client.works();
            }
            self.unanswered += usize::from(read.wants_ack);
            let (pass, answer) = match self.guard.admit(read).map_err(End::Refused)? {
                Admitted::Pass(packet) => (Some(packet), None),
                Admitted::Answer(packet) => (None, Some(packet)),
                Admitted::PassAndAnswer(publish, answer) => (
                    Some(Packet::Publish(publish, None)),
                    Some(Packet::PubRec(answer, None)),
                ),
                Admitted::Farewell => return Ok(Farewell::Said),
            };
            self.to_router.extend(pass);
            if let Some(answer) = answer {
                wire::write(answer, outbox.bytes()).map_err(End::Refused)?;
            }
        }
        Ok(Farewell::NotYet)
    }

    /// Writes what there is for the client, as much as it takes without waiting.
    async fn fill(&mut self) -> Result<(), End> {
        let Connection { sink, outbox, .. } = &mut self.connection;
        loop {
            while !outbox.is_full() {
                let Some(notification) = self.batch.pop_front() else {
                    break;
                };
                if let Notification::Unschedule = notification {
                    self.unscheduled = true;
                } else if let Some(packet) = notification.into() {
                    let delivered = wire::write(packet, outbox.bytes());
                    if let Some(packet_id) = delivered.map_err(End::Refused)? {
                        self.guard.deliver(packet_id);
                    }
                }
            }
            if outbox.is_empty() || outbox.is_stuck() {
                break;
            }
            outbox.begin(sink)?;
        }
        if self.unscheduled && self.batch.is_empty() {
            self.unscheduled = false;
            self.link.wake().await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
