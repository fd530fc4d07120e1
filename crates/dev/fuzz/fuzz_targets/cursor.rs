//! `Last-Event-ID` and `since=`: any text.
//!
//! It must not panic. What is read as a cursor must have been given out: the channels that
//! the text itself names (full UUIDs) are found again after encoding and parsing.
#![no_main]

use chat_model::{ChannelId, Cursor, Epoch, Position};
use libfuzzer_sys::fuzz_target;
use uuid::Uuid;

fuzz_target!(|input: &[u8]| {
    if let Ok(text) = std::str::from_utf8(input) {
        // Any position it gives must be one that can be given out again.
        if let Ok(cursor) = Cursor::parse(text)
            && let Some(position) = cursor.position(Uuid::nil().into())
        {
            assert_comes_back(&[(Uuid::nil().into(), position)]);
        }
    }
    assert_comes_back(&positions(input));
});

fn assert_comes_back(positions: &[(ChannelId, Position)]) {
    if positions.is_empty() {
        return;
    }
    let text = Cursor::encode(positions.iter().copied());
    let cursor = Cursor::parse(&text).expect("what was given out can be read");
    for (channel, position) in positions {
        assert_eq!(cursor.position(*channel), Some(*position), "{text}");
    }
}

/// Distinct channels with positions, 30 bytes of input each.
fn positions(input: &[u8]) -> Vec<(ChannelId, Position)> {
    let mut positions: Vec<(ChannelId, Position)> = Vec::new();
    for part in input.chunks_exact(30).take(100) {
        let number = |bytes: &[u8]| {
            bytes
                .iter()
                .fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
        };
        let channel = Uuid::from_slice(&part[..16]).expect("16 bytes").into();
        let epoch = Epoch::from_value(number(&part[16..23]) % (1 << Epoch::BITS)).expect("masked");
        let position = Position::new(epoch, number(&part[23..30]) % (1 << 53));
        if positions.iter().all(|(other, _)| *other != channel) {
            positions.push((channel, position));
        }
    }
    positions
}
