//! How much of the router's time the clients of one address get at once.
//!
//! The router is one thread, which takes all that a connection has handed to it before it looks at
//! the next. It compares a topic that is new to it, or that no filter matches, with every filter,
//! adds a message to the queue of each filter that matches, and compares a new filter with every
//! topic. So a few packets may take it a second.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use http_server::client_address::Client as Share;
use parking_lot::{Mutex as Guarded, MutexGuard};
use rumqttd::protocol::Packet;
use tokio::sync::Mutex;

/// Steps of the router, of about a microsecond each, that may be handed to it at once, and those
/// for which nobody has to wait.
const AT_ONCE: usize = 4000;
const LITTLE: usize = 400;

/// Steps that packets cost the router, at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Costs {
    /// A message: the filters, or the subscriptions that it wakes.
    pub(crate) publish: usize,
    /// A filter: the topics.
    pub(crate) filter: usize,
}

impl Costs {
    fn of(self, packet: &Packet) -> usize {
        match packet {
            Packet::Publish(..) => self.publish,
            Packet::Subscribe(subscribe, _) => self.filter * subscribe.filters.len(),
            _ => 0,
        }
    }

    /// Whether the packets cost so little that they need no turn.
    pub(crate) fn are_little(self, packets: &[Packet]) -> bool {
        packets.iter().map(|packet| self.of(packet)).sum::<usize>() <= LITTLE
    }

    /// How many of the packets, one at least, go in one turn.
    pub(crate) fn in_a_turn(self, packets: &[Packet]) -> usize {
        let mut steps = 0;
        let too_many = packets.iter().position(|packet| {
            steps += self.of(packet);
            steps > AT_ONCE
        });
        too_many.unwrap_or(packets.len()).max(1)
    }
}

/// Who of an address hands something to the router.
pub(crate) type Turn = Arc<Mutex<()>>;

/// The turns of all addresses that are connected.
#[derive(Default)]
pub(crate) struct Turns(Guarded<HashMap<Share, Weak<Mutex<()>>>>);

impl Turns {
    pub(crate) fn of(&self, share: Share) -> Turn {
        let mut all = self.lock();
        let turn = all.get(&share).and_then(Weak::upgrade).unwrap_or_default();
        all.insert(share, Arc::downgrade(&turn));
        turn
    }

    /// A connection of this address ends.
    pub(crate) fn forget(&self, share: Share, turn: &Turn) {
        let mut all = self.lock();
        if Arc::strong_count(turn) == 1 {
            all.remove(&share);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Share, Weak<Mutex<()>>>> {
        self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use rumqttd::protocol::{PingReq, Publish};

    use super::*;

    #[test]
    fn packets_that_cost_much_go_in_small_parts() {
        let publish = || Packet::Publish(Publish::new("a", "!", false), None);
        let packets: Vec<_> = std::iter::repeat_with(publish).take(1000).collect();
        for (filters, part) in [(0, 1000), (10, 400), (1000, 4), (100_000, 1)] {
            let costs = Costs {
                publish: filters,
                filter: 0,
            };
            assert_eq!(costs.in_a_turn(&packets), part, "{filters}");
            assert_eq!(costs.are_little(&packets), filters == 0);
        }
        let costs = Costs {
            publish: 1000,
            filter: 0,
        };
        assert!(costs.are_little(&[Packet::PingReq(PingReq)]));
    }

    #[test]
    fn clients_of_an_address_share_their_turn_until_the_last_has_left() {
        let turns = Turns::default();
        let [here, there] = ["192.0.2.1", "192.0.2.2"].map(|one| Share::new(one.parse().unwrap()));
        let first = turns.of(here);
        let second = turns.of(here);
        assert!(Arc::ptr_eq(&first, &second));
        assert!(!Arc::ptr_eq(&first, &turns.of(there)));
        turns.forget(here, &first);
        drop(first);
        assert!(Arc::ptr_eq(&second, &turns.of(here)));
        turns.forget(here, &second);
        assert!(!turns.lock().contains_key(&here));
    }
}
