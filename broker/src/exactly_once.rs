/// Which packet ids a client has begun a message of QoS 2 with, and not released (PUBREL).
///
/// MQTT 3.1.1 bounds them by the packet id alone: 65,535, which MQTT 5 has as its default, too. So
/// this allows all of them, in 8 KiB, which only a client of QoS 2 has.
#[derive(Default)]
pub(crate) struct Begun(Option<Box<[u64]>>);

impl Begun {
    /// Whether this id begins anew.
    pub(crate) fn begin(&mut self, packet_id: u16) -> bool {
        let (word, bit) = place(packet_id);
        let words = self.0.get_or_insert_with(|| vec![0; WORDS].into());
        let is_new = words[word] & bit == 0;
        words[word] |= bit;
        is_new
    }

    pub(crate) fn release(&mut self, packet_id: u16) {
        let (word, bit) = place(packet_id);
        if let Some(words) = &mut self.0 {
            words[word] &= !bit;
        }
    }
}

const WORDS: usize = (1 << 16) / 64;

fn place(packet_id: u16) -> (usize, u64) {
    (usize::from(packet_id / 64), 1 << (packet_id % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_packet_id_is_for_itself() {
        let mut begun = Begun::default();
        for id in 0..=u16::MAX {
            assert!(begun.begin(id), "{id}");
        }
        for id in [0, 63, 64, u16::MAX] {
            assert!(!begun.begin(id));
            begun.release(id);
            assert!(begun.begin(id));
        }
    }
}
