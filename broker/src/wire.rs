//! Packets of MQTT 3.1.1 as bytes, by rumqttd's own codec.

use bytes::BytesMut;
use rumqttd::protocol::v4::{self, V4};
use rumqttd::protocol::{Error, Packet, Protocol as _};

/// Why a packet ends its connection: a phrase for the log.
pub(crate) type Refusal = &'static str;

/// A packet that was read.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) packet: Packet,
    /// The packet id of a PUBLISH of QoS 2. rumqttd does not show it in its packet.
    pub(crate) exactly_once: Option<u16>,
    /// Whether it asks for an acknowledgement that the router gives: a PUBLISH of QoS 1, SUBSCRIBE or
    /// UNSUBSCRIBE.
    pub(crate) wants_ack: bool,
}

/// The types of packets in the upper half of their first byte (§2.2.1), and the two bits of the QoS of
/// a PUBLISH (§3.3.1).
const TYPE: u8 = 0xf0;
const PUBLISH: u8 = 0x30;
const SUBSCRIBE: u8 = 0x80;
const UNSUBSCRIBE: u8 = 0xa0;
const QOS: u8 = 0b0110;

/// Takes the next packet out of what was read; `None` while it is not there as a whole.
///
/// # Errors
/// When what follows is no packet, or one of more than `max` bytes.
pub(crate) fn read(inbox: &mut BytesMut, max: usize) -> Result<Option<Read>, Refusal> {
    let exactly_once = match inbox.first() {
        Some(first) if first & (TYPE | QOS) == PUBLISH | 0b0100 => {
            // Not there as a whole, or not well-formed: the codec finds that, too.
            v4::check(inbox.iter(), max)
                .ok()
                .and_then(|header| packet_id(&inbox[header.fixed_header_len..]))
        }
        _ => None,
    };
    let wants_ack = inbox.first().is_some_and(|first| match first & TYPE {
        PUBLISH => first & QOS == 0b0010,
        kind => kind == SUBSCRIBE || kind == UNSUBSCRIBE,
    });
    match V4.read_mut(inbox, max) {
        Ok(packet) => Ok(Some(Read {
            packet,
            exactly_once,
            wants_ack,
        })),
        Err(Error::InsufficientBytes(_)) => Ok(None),
        Err(Error::PayloadSizeLimitExceeded(_)) => Err("a packet over max_packet"),
        Err(Error::InvalidProtocol | Error::InvalidProtocolLevel(_)) => {
            Err("another protocol than MQTT 3.1.1")
        }
        Err(_) => Err("not a well-formed packet"),
    }
}

/// Appends a packet for the client. Gives the packet id of a PUBLISH that it has to acknowledge.
///
/// # Errors
/// When it cannot be written as MQTT 3.1.1.
pub(crate) fn write(packet: Packet, outbox: &mut BytesMut) -> Result<Option<u16>, Refusal> {
    let start = outbox.len();
    V4.write(packet, outbox)
        .map_err(|_error| "a packet that cannot be written")?;
    let frame = &outbox[start..];
    match frame.first() {
        Some(first) if first & TYPE == PUBLISH && first & QOS != 0 => {
            let header = v4::check(frame.iter(), frame.len()).ok();
            Ok(header.and_then(|header| packet_id(&frame[header.fixed_header_len..])))
        }
        _ => Ok(None),
    }
}

/// Of a PUBLISH without its fixed header (§3.3.2): topic, then packet id.
fn packet_id(publish: &[u8]) -> Option<u16> {
    let (topic, rest) = publish.split_first_chunk()?;
    let id = rest.get(usize::from(u16::from_be_bytes(*topic))..)?;
    id.first_chunk().map(|id| u16::from_be_bytes(*id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packet_id_follows_the_topic() {
        assert_eq!(packet_id(b"\x00\x03a/b\x01\x02!"), Some(0x0102));
        assert_eq!(packet_id(b"\x00\x03a/b\x01"), None);
        assert_eq!(packet_id(b"\xff\xffa"), None);
        assert_eq!(packet_id(b""), None);
    }

    #[test]
    fn half_a_packet_waits_and_nonsense_is_refused() {
        let mut inbox = BytesMut::from(&b"\x34\x06\x00\x01a"[..]);
        assert!(read(&mut inbox, 100).unwrap().is_none());
        inbox.extend_from_slice(b"\x00\x09!");
        assert_eq!(
            read(&mut inbox, 100).unwrap().unwrap().exactly_once,
            Some(9)
        );
        assert!(inbox.is_empty());
        for nonsense in [&b"\x34\x02\xff\xff"[..], b"\x00\x02ab"] {
            read(&mut BytesMut::from(nonsense), 100).unwrap_err();
        }
        read(&mut BytesMut::from(&b"\x30\xff\xff\xff\x7f"[..]), 100).unwrap_err();
    }
}
