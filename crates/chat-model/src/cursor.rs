use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::{ChannelId, Epoch, Position};

/// The position of a stream in each of its channels. The server sends it as `id:`, and the client
/// returns it in `Last-Event-ID` (WHATWG HTML §9.2).
///
/// It is opaque to clients and valid on every node. It is written in base64url without padding (RFC
/// 4648 §5): one byte that gives the length of the channel hashes, then for each channel the hash,
/// the epoch and the sequence number, the latter two as LEB128. 100 channels fit in 2 KB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    width: Width,
    /// Sorted by hash.
    entries: Vec<(u128, Position)>,
}

/// The text is not a cursor that Hark issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of this service: use the `id:` of an event unchanged")]
pub struct CursorError;

/// How a channel is named within a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    /// Four bytes of [`ChannelId::stable_hash`].
    Short,
    /// The whole UUID, for a stream in which two channels share the short form.
    Full,
}

impl Width {
    fn tag(self) -> u8 {
        match self {
            Self::Short => 1,
            Self::Full => 2,
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::Short => 4,
            Self::Full => 16,
        }
    }

    fn name(self, channel: ChannelId) -> u128 {
        match self {
            Self::Short => u128::from(channel.stable_hash() & 0xffff_ffff),
            Self::Full => channel.uuid().as_u128(),
        }
    }
}

impl Cursor {
    /// The cursor of a stream that has reached these positions.
    pub fn encode(positions: impl IntoIterator<Item = (ChannelId, Position)> + Clone) -> String {
        let width = match positions.clone().into_iter().count() {
            0 | 1 => Width::Short,
            _ => narrowest(positions.clone().into_iter().map(|(channel, _)| channel)),
        };
        let mut bytes = vec![width.tag()];
        for (channel, position) in positions {
            let name = width.name(channel).to_be_bytes();
            bytes.extend_from_slice(&name[16 - width.bytes()..]);
            push_varint(&mut bytes, position.epoch.value());
            push_varint(&mut bytes, position.seq);
        }
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Parses a cursor, in time linear in its length.
    ///
    /// # Errors
    /// When the text is not a cursor.
    pub fn parse(text: &str) -> Result<Self, CursorError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| CursorError)?;
        let (tag, mut rest) = bytes.split_first().ok_or(CursorError)?;
        let width = [Width::Short, Width::Full]
            .into_iter()
            .find(|width| width.tag() == *tag)
            .ok_or(CursorError)?;
        let mut entries = Vec::new();
        while !rest.is_empty() {
            let (name, after) = rest.split_at_checked(width.bytes()).ok_or(CursorError)?;
            rest = after;
            let name = name
                .iter()
                .fold(0, |name, byte| name << 8 | u128::from(*byte));
            let epoch = Epoch::from_value(take_varint(&mut rest)?).ok_or(CursorError)?;
            let seq = take_varint(&mut rest)?;
            // JSON readers hold numbers exactly only below 2^53, so no larger one was ever issued.
            if seq >= 1 << 53 {
                return Err(CursorError);
            }
            entries.push((name, Position::new(epoch, seq)));
        }
        entries.sort_unstable_by_key(|entry| entry.0);
        let distinct = entries.windows(2).all(|pair| pair[0].0 != pair[1].0);
        if entries.is_empty() || !distinct {
            return Err(CursorError);
        }
        Ok(Self { width, entries })
    }

    /// The stream's position in this channel; `None` if the cursor does not mention the channel.
    pub fn position(&self, channel: ChannelId) -> Option<Position> {
        let name = self.width.name(channel);
        let found = self
            .entries
            .binary_search_by_key(&name, |entry| entry.0)
            .ok()?;
        Some(self.entries[found].1)
    }
}

fn narrowest(channels: impl Iterator<Item = ChannelId>) -> Width {
    let mut names: Vec<_> = channels.map(|channel| Width::Short.name(channel)).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        Width::Full
    } else {
        Width::Short
    }
}

fn push_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Result<u64, CursorError> {
    let mut value = 0_u64;
    for shift in (0..63).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(CursorError)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            // Each number has one form only: no trailing zero bytes.
            return if *byte == 0 && shift > 0 {
                Err(CursorError)
            } else {
                Ok(value)
            };
        }
    }
    Err(CursorError)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn positions() -> impl Strategy<Value = Vec<(ChannelId, Position)>> {
        let position = (0..1_u64 << Epoch::BITS, 0..1_u64 << 53)
            .prop_map(|(epoch, seq)| Position::new(Epoch::from_value(epoch).unwrap(), seq));
        proptest::collection::btree_map(any::<u128>(), position, 1..20).prop_map(|map| {
            map.into_iter()
                .map(|(id, position)| (Uuid::from_u128(id).into(), position))
                .collect()
        })
    }

    proptest! {
        #[test]
        fn every_position_comes_back(positions in positions()) {
            let cursor = Cursor::parse(&Cursor::encode(positions.clone())).unwrap();
            for (channel, position) in positions {
                prop_assert_eq!(cursor.position(channel), Some(position));
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,80}", bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Cursor::parse(&text);
            let _ = Cursor::parse(&URL_SAFE_NO_PAD.encode(bytes));
        }
    }

    #[test]
    fn a_hundred_channels_fit_in_two_kilobytes() {
        let epoch = Epoch::after(Epoch::ZERO, 4_000_000_000_000);
        let positions: Vec<_> = (0..100_u128)
            .map(|n| {
                (
                    Uuid::from_u128(n << 64 | 7).into(),
                    Position::new(epoch, 200_000_000),
                )
            })
            .collect();
        assert!(Cursor::encode(positions).len() <= 2048);
    }

    #[test]
    fn channels_that_share_the_short_name_are_told_apart() {
        let mut seen = std::collections::HashMap::new();
        let (a, b) = (0_u128..)
            .map(|n| ChannelId::from(Uuid::from_u128(n)))
            .find_map(|id| {
                seen.insert(Width::Short.name(id), id)
                    .map(|other| (other, id))
            })
            .unwrap();
        let at = |seq| Position::new(Epoch::ZERO, seq);
        let cursor = Cursor::parse(&Cursor::encode([(a, at(1)), (b, at(2))])).unwrap();
        assert_eq!(
            (cursor.position(a), cursor.position(b)),
            (Some(at(1)), Some(at(2)))
        );
    }
}
