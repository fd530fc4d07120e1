//! What stands between strangers and the router of rumqttd.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use bytes::{Bytes, BytesMut};
use http_server::client_address::Client as Share;
use rumqttd::protocol::{
    Connect, LastWill, Packet, PingResp, PubComp, PubCompReason, PubRec, PubRecReason, Publish,
    QoS, Subscribe,
};

use crate::BrokerConfig;
use crate::budget::{Budget, Kept};
use crate::exactly_once::Begun;
use crate::names::{MAX_NAME, check_filter, check_topic};
use crate::pace::{Costs, Turn};
use crate::refusals::Refusals;
use crate::wire::{Read, Refusal};

/// A published message below this is copied out of what was read: the queues of rumqttd count its
/// bytes, while it would keep all bytes alive that were read with it.
const COPIED_BELOW: usize = 1024;

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
/// - more distinct filters and topics than are configured, each of which the router keeps for ever,
///   more subscriptions, and more of each than are this address's share (see [`Budget`]);
/// - retained messages (taken as ordinary ones) and sessions that outlive their connection (taken
///   as clean ones): both are kept in memory for ever;
/// - messages of QoS 2, whose bookkeeping the router would do without a bound: the receiver's half is
///   done here, they are passed on when they come first, and a subscription is granted QoS 1 at most;
/// - acknowledgements of what was not sent, at which the router would end the link by itself;
/// - packets that only a broker sends.
///
/// PINGREQ is answered here: the router would answer it behind all that it has for the client.
pub(crate) struct Guard {
    #[cfg(test)]
    asleep: bool,
    /// What it may make the router keep; without a bound for a client of the process itself.
    budget: Option<Budget>,
    /// What the client has to acknowledge, in order.
    delivered: VecDeque<u16>,
    /// Messages of QoS 2 that the client has begun (MQTT 3.1.1 §4.3.3, method B).
    begun: Begun,
}

/// Shared by the guards of all connections.
pub(crate) struct GuardState {
    refused: AtomicU64,
    /// Tells the log of them.
    refusals: Refusals,
    kept: Arc<Kept>,
    /// Lets everything pass: shows what the guard is for.
    #[cfg(test)]
    asleep: bool,
}

impl GuardState {
    pub(crate) fn new(config: &BrokerConfig) -> Self {
        Self {
            refused: AtomicU64::new(0),
            refusals: Refusals::default(),
            kept: Arc::new(Kept::new(config)),
            #[cfg(test)]
            asleep: false,
        }
    }

    #[cfg(test)]
    pub(crate) fn asleep(config: &BrokerConfig) -> Self {
        Self {
            asleep: true,
            ..Self::new(config)
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

    /// A new router knows no names.
    pub(crate) fn forget_names(&self) {
        self.kept.forget_names();
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
    pub(crate) fn new(state: &GuardState, share: Share, own: bool) -> Self {
        Self {
            budget: (!own).then(|| Budget::new(Arc::clone(&state.kept), share)),
            #[cfg(test)]
            asleep: state.asleep,
            delivered: VecDeque::new(),
            begun: Begun::default(),
        }
    }

    /// Looks at a packet that follows CONNECT.
    pub(crate) fn admit(&mut self, read: Read) -> Result<Admitted, Refusal> {
        let Read {
            packet,
            exactly_once,
            ..
        } = read;
        #[cfg(test)]
        if self.asleep {
            return Ok(Admitted::Pass(packet));
        }
        match packet {
            Packet::Publish(mut publish, properties) => {
                check_topic(&publish.topic)?;
                self.admit_topic(&publish.topic)?;
                publish.retain = false;
                unshare(&mut publish);
                match exactly_once {
                    Some(packet_id) => Ok(self.begin(publish, packet_id)),
                    None => Ok(Admitted::Pass(Packet::Publish(publish, properties))),
                }
            }
            Packet::PubRel(release, _) => {
                // Again after a lost PUBCOMP, perhaps.
                self.begun.release(release.pkid);
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
            Packet::Unsubscribe(unsubscribe, properties) => {
                if let Some(budget) = &mut self.budget {
                    budget.forget_filters(&unsubscribe.filters);
                }
                Ok(Admitted::Pass(Packet::Unsubscribe(unsubscribe, properties)))
            }
            Packet::PingReq(_) => Ok(Admitted::Answer(Packet::PingResp(PingResp))),
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

    /// What packets cost the router, and the turn in which this client may hand it some; none for a
    /// client of the process itself.
    pub(crate) fn pace(&self) -> Option<(Costs, &Turn)> {
        self.budget.as_ref().map(Budget::pace)
    }

    fn begin(&mut self, publish: Publish, packet_id: u16) -> Admitted {
        let received = PubRec {
            pkid: packet_id,
            reason: PubRecReason::Success,
        };
        if !self.begun.begin(packet_id) {
            return Admitted::Answer(Packet::PubRec(received, None));
        }
        // This makes one of QoS 0.
        let pass = Publish::new(publish.topic, publish.payload, false);
        Admitted::PassAndAnswer(pass, received)
    }

    /// Counts a topic: of a message or a will.
    pub(crate) fn admit_topic(&mut self, topic: &[u8]) -> Result<(), Refusal> {
        self.budget
            .as_mut()
            .map_or(Ok(()), |budget| budget.admit_topic(topic))
    }

    fn admit_filters(&mut self, subscribe: &Subscribe) -> Result<(), Refusal> {
        for filter in &subscribe.filters {
            check_filter(&filter.path)?;
            if let Some(budget) = &mut self.budget {
                budget.admit_filter(&filter.path)?;
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
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::wire;

    fn guard() -> Guard {
        let share = Share::new("192.0.2.1".parse().unwrap());
        let state = GuardState::new(&BrokerConfig::default());
        Guard::new(&state, share, false)
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
    fn as_many_messages_of_qos_2_may_be_begun_as_there_are_packet_ids() {
        let mut guard = guard();
        for id in 1..=u16::MAX {
            let [high, low] = id.to_be_bytes();
            let begun = admit(&mut guard, &[0x34, 6, 0, 1, b'a', high, low, b'!']);
            assert!(
                matches!(begun, Ok(Admitted::PassAndAnswer(..))),
                "{id}: {begun:?}"
            );
        }
    }

    #[test]
    fn topics_of_the_process_itself_do_not_count() {
        let config = BrokerConfig {
            max_topics: 2,
            ..BrokerConfig::default()
        };
        let state = GuardState::new(&config);
        let [mut own, mut stranger] = [true, false].map(|own| {
            let share = Share::new("127.0.0.1".parse().unwrap());
            Guard::new(&state, share, own)
        });
        let publish = |guard: &mut Guard, topic| admit(guard, &[0x30, 4, 0, 1, topic, b'!']);
        for topic in b'a'..=b'z' {
            publish(&mut own, topic).unwrap();
        }
        publish(&mut stranger, b'a').unwrap();
        publish(&mut stranger, b'b').unwrap_err();
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

    proptest! {
        /// What a stranger sends never panics, and nothing passes that the router does not survive.
        #[test]
        fn whatever_is_sent_only_passes_what_the_router_survives(
            packets in vec(packet(), 1..20),
        ) {
            let mut guard = guard();
            let mut inbox = BytesMut::from(packets.concat().as_slice());
            while let Ok(Some(read)) = wire::read(&mut inbox, 1000) {
                match guard.admit(read) {
                    Ok(
                        Admitted::Pass(Packet::Publish(publish, _))
                        | Admitted::PassAndAnswer(publish, _),
                    ) => {
                        prop_assert!(!publish.retain && publish.topic[0].is_ascii());
                    }
                    Ok(Admitted::Pass(Packet::Subscribe(subscribe, _))) => {
                        for filter in subscribe.filters {
                            prop_assert_ne!(filter.qos, QoS::ExactlyOnce);
                            prop_assert!(!filter.path.starts_with('$'));
                        }
                    }
                    Ok(Admitted::Pass(passed)) => prop_assert!(
                        matches!(passed, Packet::Unsubscribe(..)),
                        "{:?}",
                        passed
                    ),
                    Ok(Admitted::Answer(_)) => {}
                    Ok(Admitted::Farewell) | Err(_) => break,
                }
            }
        }
    }

    /// A header of any kind with a body of its length, mostly of bytes that mean something.
    fn packet() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            3 => 0_u8..4,
            2 => proptest::sample::select(b"a/+#$\xc3\xa9".as_slice()),
            1 => any::<u8>(),
        ];
        (any::<u8>(), vec(byte, 0..40)).prop_map(|(first, body)| {
            let length = u8::try_from(body.len()).unwrap();
            [&[first, length], body.as_slice()].concat()
        })
    }
}
