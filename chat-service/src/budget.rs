//! How many bytes clients make the service hold at a time, and each client's share of them.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use service_kit::client_address::Client;

/// Counters of what clients hold, in each of two rows. One pair of clients in a million shares both, and
/// nobody can choose to: the hash has a random key.
const COUNTERS: usize = 1024;

/// The bytes of one kind, such as bodies or answers, that are held for all clients. A client may hold
/// as many as are still free: alone half, and ten that want everything an eleventh each. Why: decision 19.
pub(crate) struct Budget {
    most: usize,
    held: AtomicUsize,
    by_client: Box<[AtomicUsize]>,
    key: RandomState,
}

/// What one request holds, until it is dropped.
pub(crate) struct Held {
    budget: Arc<Budget>,
    counters: [usize; 2],
    bytes: usize,
}

/// There is no room for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// The client holds as much as is free.
    Client,
    /// All is taken by others.
    All,
}

impl Budget {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            held: AtomicUsize::new(0),
            by_client: (0..2 * COUNTERS).map(|_| AtomicUsize::new(0)).collect(),
            key: RandomState::new(),
        })
    }

    /// Holds nothing yet, for a request of this client.
    pub(crate) fn hold(self: &Arc<Self>, client: Client) -> Held {
        let hash = self.key.hash_one(client);
        let counter = |bits: u64| bits as usize % COUNTERS;
        Held {
            budget: Arc::clone(self),
            counters: [counter(hash), COUNTERS + counter(hash >> 32)],
            bytes: 0,
        }
    }
}

impl Held {
    /// Holds so many more.
    ///
    /// # Errors
    /// [`Full`], if that is more than the client may hold now: it holds as many as before.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), Full> {
        let budget = &*self.budget;
        let add = |counter: &AtomicUsize| counter.fetch_add(bytes, Relaxed) + bytes;
        let all = add(&budget.held);
        // Others may be counted in one of the two.
        let own = self.counters.map(|counter| add(&budget.by_client[counter]));
        let own = own[0].min(own[1]);
        let free = budget.most.saturating_sub(all);
        if own <= free {
            self.bytes += bytes;
            return Ok(());
        }
        self.give_back(bytes);
        Err(if own == bytes {
            Full::All
        } else {
            Full::Client
        })
    }

    fn give_back(&self, bytes: usize) {
        self.budget.held.fetch_sub(bytes, Relaxed);
        for counter in self.counters {
            self.budget.by_client[counter].fetch_sub(bytes, Relaxed);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(n: u8) -> Client {
        Client::new([192, 0, 2, n].into())
    }

    /// Takes one byte after the other until there is no room, in one request.
    fn fill(held: &mut Held) -> (usize, Full) {
        let mut taken = 0;
        loop {
            match held.grow(1) {
                Ok(()) => taken += 1,
                Err(full) => return (taken, full),
            }
        }
    }

    #[test]
    fn one_client_gets_half_and_leaves_room_for_others() {
        let budget = Budget::new(1_000);
        let mut greedy = budget.hold(client(1));
        assert_eq!(fill(&mut greedy), (500, Full::Client));
        // In another request neither.
        assert_eq!(budget.hold(client(1)).grow(1), Err(Full::Client));
        let mut other = budget.hold(client(2));
        other.grow(200).unwrap();
        drop(greedy);
        assert_eq!(budget.held.load(Relaxed), 200);
        drop(other);
        let counters = budget.by_client.iter();
        assert!(
            counters
                .chain([&budget.held])
                .all(|it| it.load(Relaxed) == 0)
        );
    }

    #[test]
    fn many_that_want_everything_leave_a_rest() {
        let budget = Budget::new(1_100);
        let mut greedy: Vec<_> = (1..=10).map(|n| budget.hold(client(n))).collect();
        // In turns, as those who send at the same time do.
        for _ in 0..1_100 {
            for held in &mut greedy {
                // Refused or not, it tries again.
                let _full = held.grow(1);
            }
        }
        let mut late = budget.hold(client(99));
        late.grow(40).unwrap();
        assert_eq!(budget.hold(client(98)).grow(1_000), Err(Full::All));
    }
}
