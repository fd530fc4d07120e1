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
mod tests;
