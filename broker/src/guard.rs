//! What stands between strangers and the router of rumqttd.

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use rumqttd::protocol::{
    Connect, LastWill, Packet, PubComp, PubCompReason, PubRec, PubRecReason, Publish, QoS,
    Subscribe, valid_filter,
};

use crate::refusals::Refusals;
use crate::wire::{Read, Refusal};

/// Bytes of a topic, a filter or a client id. rumqttd keeps topics and filters until it ends.
const MAX_NAME: usize = 1024;

/// A published message below this is copied out of what was read: the queues of rumqttd count its
/// bytes, while it would keep all bytes alive that were read with it.
const COPIED_BELOW: usize = 1024;

/// Messages of QoS 2 that a client may have begun and not released (PUBREL).
const MAX_BEGUN: usize = 100;

/// MQTT 3.1.1 as rumqttd reads it, minus the packets that would harm it. There is one for each
/// connection.
///
/// Its router is one thread, and a panic there ends the broker for everyone; what it keeps for a
/// filter or a topic is never freed. So this refuses, by ending the connection, or mends, before the
/// router sees it:
/// - a topic that is empty, long, has a wildcard or NUL, or begins with a character beyond ASCII
///   (the router cuts it after its first *byte* and panics);
/// - shared subscriptions, whose bookkeeping can panic, filters that MQTT does not allow, and those
///   that begin with `$`, at which the router would end the link by itself (see `Link`);
/// - more distinct filters than are configured;
/// - retained messages (taken as ordinary ones) and sessions that outlive their connection (taken
///   as clean ones): both are kept in memory for ever;
/// - messages of QoS 2, whose bookkeeping has no bound: the receiver's half is done here, they are
///   passed on when they come first, and a subscription is granted QoS 1 at most;
/// - acknowledgements of what was not sent, at which the router would end the link by itself;
/// - packets that only a broker sends.
pub(crate) struct Guard {
    state: Arc<GuardState>,
    /// Does not count for the bounds: a client of the process itself.
    own: bool,
    /// What the client has to acknowledge, in order.
    delivered: VecDeque<u16>,
    /// Messages of QoS 2 that the client has begun (MQTT 3.1.1 §4.3.3, method B).
    begun: HashSet<u16>,
}

/// Shared by the guards of all connections.
pub(crate) struct GuardState {
    max_filters: usize,
    refused: AtomicU64,
    /// Tells the log of them.
    refusals: Refusals,
    /// The filters that rumqttd has a queue for.
    filters: Mutex<HashSet<String>>,
    /// Lets everything pass: shows what the guard is for.
    #[cfg(test)]
    asleep: bool,
}

impl GuardState {
    pub(crate) fn new(max_filters: usize) -> Self {
        Self {
            max_filters,
            refused: AtomicU64::new(0),
            refusals: Refusals::default(),
            filters: Mutex::new(HashSet::new()),
            #[cfg(test)]
            asleep: false,
        }
    }

    #[cfg(test)]
    pub(crate) fn asleep() -> Self {
        Self {
            asleep: true,
            ..Self::new(100)
        }
    }

    /// Connections that were ended for what they sent.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Counts one more of them, and tells the log.
    pub(crate) fn refuse(&self, reason: Refusal, peer: SocketAddr) {
        self.refused.fetch_add(1, Relaxed);
        self.refusals.say(reason, peer);
    }

    /// A new router knows no filters.
    pub(crate) fn forget_filters(&self) {
        self.filters().clear();
    }

    fn filters(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        // Nothing can panic while the lock is held.
        self.filters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What becomes of a packet that is let in.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Admitted {
    /// It goes to the router.
    Pass(Packet),
    /// The client is answered, the router sees nothing.
    Answer(Packet),
    /// Both: to the router, and to the client.
    PassAndAnswer(Publish, PubRec),
    /// The client says farewell.
    Farewell,
}

impl Guard {
    /// The guard of a connection; `own` for a client of the process itself.
    pub(crate) fn new(state: Arc<GuardState>, own: bool) -> Self {
        Self {
            state,
            own,
            delivered: VecDeque::new(),
            begun: HashSet::new(),
        }
    }

    /// Looks at a packet that follows CONNECT.
    pub(crate) fn admit(&mut self, read: Read) -> Result<Admitted, Refusal> {
        let Read {
            packet,
            exactly_once,
        } = read;
        #[cfg(test)]
        if self.state.asleep {
            return Ok(Admitted::Pass(packet));
        }
        match packet {
            Packet::Publish(mut publish, properties) => {
                check_topic(&publish.topic)?;
                publish.retain = false;
                unshare(&mut publish);
                match exactly_once {
                    Some(packet_id) => self.begin(publish, packet_id),
                    None => Ok(Admitted::Pass(Packet::Publish(publish, properties))),
                }
            }
            Packet::PubRel(release, _) => {
                // Again after a lost PUBCOMP, perhaps.
                self.begun.remove(&release.pkid);
                let complete = PubComp {
                    pkid: release.pkid,
                    reason: PubCompReason::Success,
                };
                Ok(Admitted::Answer(Packet::PubComp(complete, None)))
            }
            Packet::PubAck(ack, properties) => {
                if self.delivered.pop_front() != Some(ack.pkid) {
                    return Err("an acknowledgement of nothing, or out of order");
                }
                Ok(Admitted::Pass(Packet::PubAck(ack, properties)))
            }
            Packet::Subscribe(mut subscribe, properties) => {
                self.admit_filters(&subscribe)?;
                for filter in &mut subscribe.filters {
                    if filter.qos == QoS::ExactlyOnce {
                        filter.qos = QoS::AtLeastOnce;
                    }
                }
                Ok(Admitted::Pass(Packet::Subscribe(subscribe, properties)))
            }
            Packet::Unsubscribe(..) | Packet::PingReq(_) => Ok(Admitted::Pass(packet)),
            Packet::Disconnect(..) => Ok(Admitted::Farewell),
            Packet::Connect(..) => Err("a second CONNECT"),
            Packet::PubRec(..) | Packet::PubComp(..) => {
                Err("an acknowledgement of QoS 2, which was not granted")
            }
            Packet::ConnAck(..)
            | Packet::SubAck(..)
            | Packet::UnsubAck(..)
            | Packet::PingResp(_) => Err("a packet that only a broker sends"),
        }
    }

    /// The router hands a message of QoS 1 to the client, who has to acknowledge it.
    pub(crate) fn deliver(&mut self, packet_id: u16) {
        self.delivered.push_back(packet_id);
    }

    fn begin(&mut self, publish: Publish, packet_id: u16) -> Result<Admitted, Refusal> {
        let received = PubRec {
            pkid: packet_id,
            reason: PubRecReason::Success,
        };
        if self.begun.contains(&packet_id) {
            return Ok(Admitted::Answer(Packet::PubRec(received, None)));
        }
        if self.begun.len() >= MAX_BEGUN {
            return Err("too many messages of QoS 2 without PUBREL");
        }
        self.begun.insert(packet_id);
        // This makes one of QoS 0.
        let pass = Publish::new(publish.topic, publish.payload, false);
        Ok(Admitted::PassAndAnswer(pass, received))
    }

    fn admit_filters(&self, subscribe: &Subscribe) -> Result<(), Refusal> {
        let mut known = self.state.filters();
        for filter in &subscribe.filters {
            let path = filter.path.as_str();
            if path.starts_with("$share") {
                return Err("a shared subscription");
            }
            if path.starts_with('$') {
                return Err("a filter that begins with $");
            }
            if path.len() > MAX_NAME {
                return Err("a filter of more than 1 KiB");
            }
            if !valid_filter(path) || path.contains('\0') {
                return Err("a filter that MQTT does not allow");
            }
            if !self.own && !known.contains(path) {
                if known.len() >= self.state.max_filters {
                    return Err("more distinct filters than max_filters");
                }
                known.insert(path.to_owned());
            }
        }
        Ok(())
    }
}

/// Looks at a CONNECT and its will.
pub(crate) fn admit_connect(connect: &Connect, will: Option<&mut LastWill>) -> Result<(), Refusal> {
    if connect.client_id.len() > MAX_NAME {
        return Err("a client id of more than 1 KiB");
    }
    if let Some(will) = will {
        check_topic(&will.topic)?;
        will.retain = false;
    }
    Ok(())
}

/// A topic that can be published to (MQTT 3.1.1 §4.7), and that the router survives.
fn check_topic(topic: &[u8]) -> Result<(), Refusal> {
    let first = topic.first().ok_or("an empty topic")?;
    if !first.is_ascii() {
        return Err("a topic that begins with a character beyond ASCII");
    }
    if topic.len() > MAX_NAME {
        return Err("a topic of more than 1 KiB");
    }
    if topic.iter().any(|byte| matches!(byte, b'+' | b'#' | 0)) {
        return Err("a topic with a wildcard or NUL");
    }
    std::str::from_utf8(topic)
        .map(drop)
        .map_err(|_| "a topic that is not UTF-8")
}

/// Topic and payload in memory of their own, if they are small.
fn unshare(publish: &mut Publish) {
    let topic = publish.topic.len();
    let size = topic + publish.payload.len();
    if size < COPIED_BELOW {
        let mut both = BytesMut::with_capacity(size);
        both.extend_from_slice(&publish.topic);
        both.extend_from_slice(&publish.payload);
        let mut both: Bytes = both.freeze();
        publish.topic = both.split_to(topic);
        publish.payload = both;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    fn guard() -> Guard {
        Guard::new(Arc::new(GuardState::new(10)), false)
    }

    fn admit(guard: &mut Guard, packet: &[u8]) -> Result<Admitted, Refusal> {
        let mut inbox = BytesMut::from(packet);
        let read = wire::read(&mut inbox, 1000)?;
        guard.admit(read.expect("a whole packet"))
    }

    /// PUBLISH of QoS 2 to "a" (MQTT 3.1.1 §3.3), and its PUBREL (§3.6).
    fn begin(guard: &mut Guard, id: u8) -> Result<Admitted, Refusal> {
        admit(guard, &[0x34, 6, 0, 1, b'a', 0, id, b'!'])
    }

    fn release(guard: &mut Guard, id: u8) -> Result<Admitted, Refusal> {
        admit(guard, &[0x62, 2, 0, id])
    }

    fn acknowledge(guard: &mut Guard, id: u8) -> Result<Admitted, Refusal> {
        admit(guard, &[0x40, 2, 0, id])
    }

    #[test]
    fn topics_that_harm_are_refused() {
        let long = "a".repeat(MAX_NAME + 1);
        for bad in ["", "\u{e9}t\u{e9}", "chat/+", "#", "a\0b", &long] {
            assert!(check_topic(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(check_topic(b"a\xff").is_err());
        for good in ["chat/x", "/", "caf\u{e9}", "$SYS/x", "a b"] {
            assert_eq!(check_topic(good.as_bytes()), Ok(()), "{good:?}");
        }
    }

    #[test]
    fn message_of_qos_2_is_passed_on_once() {
        let mut guard = guard();
        let passed = Publish::new("a", "!", false);
        let received = PubRec {
            pkid: 7,
            reason: PubRecReason::Success,
        };
        let first = Admitted::PassAndAnswer(passed, received.clone());
        let received = Packet::PubRec(received, None);
        assert_eq!(begin(&mut guard, 7), Ok(first.clone()));
        assert_eq!(begin(&mut guard, 7), Ok(Admitted::Answer(received)));
        let released = release(&mut guard, 7).unwrap();
        assert!(matches!(released, Admitted::Answer(Packet::PubComp(..))));
        assert_eq!(begin(&mut guard, 7), Ok(first));
    }

    #[test]
    fn messages_of_qos_2_without_release_are_bounded() {
        let mut guard = guard();
        for id in 1..=100 {
            begin(&mut guard, id).unwrap();
        }
        begin(&mut guard, 101).unwrap_err();
        release(&mut guard, 1).unwrap();
        begin(&mut guard, 101).unwrap();
    }

    #[test]
    fn only_what_was_delivered_can_be_acknowledged() {
        let mut guard = guard();
        acknowledge(&mut guard, 1).unwrap_err();
        guard.deliver(1);
        guard.deliver(2);
        acknowledge(&mut guard, 1).unwrap();
        acknowledge(&mut guard, 3).unwrap_err();
    }

    #[test]
    fn small_message_does_not_keep_what_was_read_with_it() {
        let mut inbox = BytesMut::with_capacity(10_000);
        let memory = inbox.as_ptr();
        inbox.extend_from_slice(&[0x30, 4, 0, 1, b'a', b'!']);
        let read = wire::read(&mut inbox, 1000).unwrap().unwrap();
        let _passed = guard().admit(read).unwrap();
        inbox.reserve(10_000);
        assert_eq!(inbox.as_ptr(), memory, "the same memory, free again");
    }
}
