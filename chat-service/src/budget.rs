//! How many bytes clients make the service hold at a time, and each client's share of them.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use http_server::client_address::Client;

/// Counters of what clients and networks hold, in each of two rows. One pair in a million shares both, and
/// nobody can choose to: the hash has a random key.
const COUNTERS: usize = 1024;

/// What a network of IPv6 may hold, in shares of a client: providers give a /48 to one customer, who
/// then has 65,536 clients.
const NETWORK: usize = 3;

/// The bytes of one kind, such as bodies or answers, that are held for all clients. A client may hold
/// as many as are still free: alone half, and ten that want everything an eleventh each. Those of one
/// network of IPv6 may hold three times that together: alone three quarters. Why: decisions 19 and 26.
pub(crate) struct Budget {
    most: usize,
    held: AtomicUsize,
    counters: Box<[AtomicUsize]>,
    key: RandomState,
}

/// Two counters.
type Place = [usize; 2];

/// What one request holds, until it is dropped.
pub(crate) struct Held {
    budget: Arc<Budget>,
    client: Place,
    /// Of IPv6 addresses.
    network: Option<Place>,
    bytes: usize,
}

/// There is no room for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// The client holds as much as is free.
    Client,
    /// Its network holds three times that.
    Network,
    /// All is taken by others.
    All,
}

impl Budget {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            held: AtomicUsize::new(0),
            counters: (0..2 * COUNTERS).map(|_| AtomicUsize::new(0)).collect(),
            key: RandomState::new(),
        })
    }

    /// Holds nothing yet, for a request of this client.
    pub(crate) fn hold(self: &Arc<Self>, client: Client) -> Held {
        let network = (!client.is_ipv4()).then(|| self.place((client.network(), "network")));
        Held {
            budget: Arc::clone(self),
            client: self.place(client),
            network,
            bytes: 0,
        }
    }

    fn place(&self, of: impl Hash) -> Place {
        let hash = self.key.hash_one(of);
        let counter = |bits: u64| bits as usize % COUNTERS;
        [counter(hash), COUNTERS + counter(hash >> 32)]
    }

    /// Counts so many more in a place, and returns how many there are.
    fn add(&self, place: Place, bytes: usize) -> usize {
        let add = |counter: usize| self.counters[counter].fetch_add(bytes, Relaxed) + bytes;
        // Others may be counted in one of the two.
        let [one, other] = place.map(add);
        one.min(other)
    }
}

impl Held {
    /// Holds so many more.
    ///
    /// # Errors
    /// [`Full`], if that is more than the client may hold now: it holds as many as before.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), Full> {
        let budget = &*self.budget;
        let all = budget.held.fetch_add(bytes, Relaxed) + bytes;
        let own = budget.add(self.client, bytes);
        let network = self.network.map_or(0, |network| budget.add(network, bytes));
        let free = budget.most.saturating_sub(all);
        if own <= free && network <= NETWORK.saturating_mul(free) {
            self.bytes += bytes;
            return Ok(());
        }
        self.give_back(bytes);
        Err(if own > bytes && own > free {
            Full::Client
        } else if network > bytes {
            Full::Network
        } else {
            Full::All
        })
    }

    fn give_back(&self, bytes: usize) {
        self.budget.held.fetch_sub(bytes, Relaxed);
        let network = self.network.into_iter().flatten();
        for counter in self.client.into_iter().chain(network) {
            self.budget.counters[counter].fetch_sub(bytes, Relaxed);
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

    /// A client in whose counters nobody is counted, whatever the hash's key.
    fn uncounted(budget: &Budget) -> Client {
        let free = |counter: usize| budget.counters[counter].load(Relaxed) == 0;
        let mut clients = (11..=255).map(client);
        let found = clients.find(|client| budget.place(*client).into_iter().all(free));
        found.expect("ten clients leave most counters free")
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
        let counters = budget.counters.iter();
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
        let mut late = budget.hold(uncounted(&budget));
        late.grow(40).unwrap();
        let later = budget.hold(uncounted(&budget)).grow(1_000);
        assert_eq!(later, Err(Full::All));
    }

    #[test]
    fn network_with_many_addresses_leaves_a_quarter() {
        let budget = Budget::new(1_000);
        let address = |n: u16| Client::new([0x2001, 0xdb8, 7, n, 0, 0, 0, 1].into());
        let mut greedy: Vec<_> = (0..100).map(|n| budget.hold(address(n))).collect();
        let taken: usize = greedy.iter_mut().map(|held| fill(held).0).sum();
        assert!((740..=750).contains(&taken), "{taken}");
        assert_eq!(budget.hold(address(100)).grow(10), Err(Full::Network));
        let neighbour = [0x2001, 0xdb8, 8, 0, 0, 0, 0, 1];
        let neighbour = Client::new(neighbour.into());
        for honest in [neighbour, client(1)] {
            budget.hold(honest).grow(100).unwrap();
        }
        drop(greedy);
        assert_eq!(budget.held.load(Relaxed), 0);
        assert!(budget.counters.iter().all(|it| it.load(Relaxed) == 0));
    }
}
