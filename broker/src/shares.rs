//! What strangers make the router keep, shared out among their addresses.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};

use http_server::client_address::Client as Share;
use parking_lot::{Mutex, MutexGuard};

/// So many of something that may be there at a time.
///
/// Who has as many as are still free gets no more, as with the keys of chat-service's store: alone
/// one gets half, and whoever has fewer than are free is never refused.
pub(crate) struct Shares {
    max: usize,
    taken: usize,
    by_share: HashMap<Share, usize>,
}

impl Shares {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            max,
            taken: 0,
            by_share: HashMap::new(),
        }
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        self.taken
    }

    /// Takes one more, if it may be.
    pub(crate) fn take(&mut self, share: Share) -> bool {
        let free = self.max.saturating_sub(self.taken);
        let own = self.by_share.get(&share).copied().unwrap_or(0);
        if own >= free {
            return false;
        }
        self.taken += 1;
        self.by_share.insert(share, own + 1);
        true
    }

    /// Gives some of those back that were taken.
    pub(crate) fn give_back(&mut self, share: Share, count: usize) {
        self.taken = self.taken.saturating_sub(count);
        if let Some(own) = self.by_share.get_mut(&share) {
            *own = own.saturating_sub(count);
            if *own == 0 {
                self.by_share.remove(&share);
            }
        }
    }
}

/// Names that the router never forgets: filters, or topics.
pub(crate) struct Names {
    max: usize,
    /// Its seed is random, so nobody can choose names that look alike.
    hasher: RandomState,
    known: Mutex<Known>,
}

struct Known {
    names: HashSet<u64>,
    shares: Shares,
}

impl Known {
    fn new(max: usize) -> Self {
        Self {
            names: HashSet::new(),
            shares: Shares::new(max),
        }
    }
}

impl Names {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            max,
            hasher: RandomState::new(),
            known: Mutex::new(Known::new(max)),
        }
    }

    /// Whether the router may hear this name from there: it knows it already, or there is room.
    pub(crate) fn admit(&self, name: u64, share: Share) -> bool {
        let known = &mut *self.lock();
        if known.names.contains(&name) {
            return true;
        }
        let admitted = known.shares.take(share);
        if admitted {
            known.names.insert(name);
        }
        admitted
    }

    /// How many of them the router knows.
    pub(crate) fn count(&self) -> usize {
        self.lock().shares.taken()
    }

    /// By which a name is told from others here.
    pub(crate) fn hash(&self, name: &[u8]) -> u64 {
        self.hasher.hash_one(name)
    }

    /// A new router knows no names.
    pub(crate) fn forget(&self) {
        *self.lock() = Known::new(self.max);
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(text: &str) -> Share {
        Share::new(text.parse().unwrap())
    }

    #[test]
    fn whoever_has_fewer_than_are_free_is_not_refused() {
        let [greedy, honest] = ["192.0.2.1", "192.0.2.2"].map(share);
        let mut shares = Shares::new(100);
        let taken = (0..1000).filter(|_| shares.take(greedy)).count();
        assert_eq!(taken, 50);
        let taken = (0..1000).filter(|_| shares.take(honest)).count();
        assert_eq!(taken, 25);
        shares.give_back(greedy, 50);
        assert!(shares.take(honest));
    }

    #[test]
    fn known_name_costs_nothing() {
        let names = Names::new(2);
        let [here, there] = ["192.0.2.1", "192.0.2.2"].map(share);
        assert!(names.admit(names.hash(b"a"), here));
        assert!(!names.admit(names.hash(b"b"), here));
        assert!(names.admit(names.hash(b"a"), there));
        names.forget();
        assert!(names.admit(names.hash(b"b"), here));
    }
}
