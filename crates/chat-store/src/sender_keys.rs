//! How the ids and keys that senders chose are kept.

use uuid::Uuid;

use crate::{Append, ReusedKey};

/// An id and a key live in one table; the first byte keeps them apart.
fn id_key(id: Uuid) -> [u8; 17] {
    prefixed(b'i', id.as_bytes())
}

fn prefixed(kind: u8, bytes: &[u8; 16]) -> [u8; 17] {
    let mut key = [kind; 17];
    key[1..].copy_from_slice(bytes);
    key
}

/// The key by which a message is known again: its sender's id, or else the `Idempotency-Key`. Only
/// one, so that a message costs no more than that: who sends both sends both again.
pub(crate) fn key_of(new: &Append) -> Option<(ReusedKey, [u8; 17])> {
    let id = new.message.id.map(|id| (ReusedKey::Id, id_key(id)));
    id.or_else(|| {
        let key = new.key?;
        Some((ReusedKey::IdempotencyKey, prefixed(b'k', key.bytes())))
    })
}
