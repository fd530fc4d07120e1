/// The size in bytes of a PUBLISH with a packet id (MQTT 3.1.1 §3.3).
pub(crate) fn publish_size(topic: usize, payload: usize) -> usize {
    let remaining = 2 + topic + 2 + payload;
    // Each byte holds seven bits of the remaining length (§2.2.3).
    let length_bytes = match remaining {
        0..=127 => 1,
        128..=16_383 => 2,
        16_384..=2_097_151 => 3,
        _ => 4,
    };
    1 + length_bytes + remaining
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use proptest::prelude::*;
    use rumqttc::mqttbytes::QoS;
    use rumqttc::mqttbytes::v4::{Packet, Publish};

    use super::*;

    proptest! {
        #[test]
        fn publish_size_is_what_the_codec_writes(topic in 1_usize..300, payload in 0_usize..40_000) {
            let mut publish = Publish::from_bytes(
                "t".repeat(topic),
                QoS::AtLeastOnce,
                Bytes::from(vec![b'x'; payload]),
            );
            publish.pkid = 1;
            let mut out = BytesMut::new();
            Packet::Publish(publish).write(&mut out, usize::MAX).unwrap();
            prop_assert_eq!(publish_size(topic, payload), out.len());
        }
    }
}
