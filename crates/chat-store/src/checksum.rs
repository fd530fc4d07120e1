//! By which a stored event is known to be the one that was stored.
//!
//! CRC-32C over the channel, the number and the event's bytes: a flipped bit in any of them shows,
//! and so does an event that is found in another's place. It costs a few dozen nanoseconds where
//! the processor has an instruction for it. It is no protection from whoever can write the file.

use chat_model::{ChannelId, EventHead, Seq};

/// The checksum of an event, as the database keeps it.
pub(crate) fn checksum(channel: ChannelId, seq: Seq, event: &[u8]) -> i32 {
    let mut place = [0; 24];
    place[..16].copy_from_slice(channel.uuid().as_bytes());
    place[16..].copy_from_slice(&seq.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&place), event).cast_signed()
}

/// Whether an event is the one that was stored under this number. One without a checksum is older
/// than those: it must at least be an event of this channel and number.
pub(crate) fn is_sound(channel: ChannelId, seq: Seq, event: &[u8], sum: Option<i32>) -> bool {
    match sum {
        Some(sum) => checksum(channel, seq, event) == sum,
        None => {
            EventHead::parse(event).is_ok_and(|head| head.channel == channel && head.seq == seq)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flipped_bit_and_any_other_place_shows() {
        let channel = ChannelId::from(uuid::Uuid::from_u128(7));
        let event = *br#"{"text":"a"}"#;
        let sum = Some(checksum(channel, 3, &event));
        assert!(is_sound(channel, 3, &event, sum));
        assert!(!is_sound(channel, 4, &event, sum));
        assert!(!is_sound(uuid::Uuid::from_u128(8).into(), 3, &event, sum));
        for bit in 0..event.len() * 8 {
            let mut flipped = event;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_sound(channel, 3, &flipped, sum), "bit {bit}");
        }
        assert!(!is_sound(channel, 3, &event, None), "that is no event");
    }

    #[test]
    fn stored_checksums_stay_good() {
        // What is in a database must be found right by every later program.
        let channel = ChannelId::from(uuid::Uuid::from_u128(7));
        assert_eq!(checksum(channel, 3, b"event"), -914_056_891);
    }
}
