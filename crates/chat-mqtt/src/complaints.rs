use std::collections::BTreeMap;

use parking_lot::{Mutex, MutexGuard};

/// What can be wrong between a connection and its broker, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// There is no connection.
    Away,
    /// Messages that should arrive do not.
    Deaf,
    /// Filters are refused.
    Refused,
    /// Heartbeats end the connection.
    Unwelcome,
    /// The largest message would end the connection.
    PacketLimit,
}

/// What is wrong now with each connection, in sentences for the operator.
#[derive(Debug, Default)]
pub(crate) struct Complaints(Mutex<BTreeMap<(Fault, usize), String>>);

impl Complaints {
    /// Notes what is wrong. Returns whether it is new, and thus worth a line in the log.
    pub(crate) fn raise(&self, fault: Fault, connection: usize, sentence: String) -> bool {
        self.lock().insert((fault, connection), sentence).is_none()
    }

    /// Notes that a fault is gone. Returns whether it was there.
    pub(crate) fn clear(&self, fault: Fault, connection: usize) -> bool {
        self.lock().remove(&(fault, connection)).is_some()
    }

    /// How many connections have this fault.
    pub(crate) fn count(&self, fault: Fault) -> usize {
        self.lock().keys().filter(|(has, _)| *has == fault).count()
    }

    /// The sentence about the worst fault.
    pub(crate) fn worst(&self) -> Option<String> {
        self.lock().values().next().cloned()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Fault, usize), String>> {
        self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_is_told_and_each_is_news_once() {
        let complaints = Complaints::default();
        assert_eq!(complaints.worst(), None);
        assert!(complaints.raise(Fault::PacketLimit, 0, "small".to_owned()));
        assert!(!complaints.raise(Fault::PacketLimit, 0, "smaller".to_owned()));
        assert!(complaints.raise(Fault::Deaf, 1, "deaf".to_owned()));
        assert_eq!(complaints.worst().as_deref(), Some("deaf"));
        assert_eq!(complaints.count(Fault::Deaf), 1);
        assert!(complaints.clear(Fault::Deaf, 1));
        assert!(!complaints.clear(Fault::Deaf, 1));
        assert_eq!(complaints.worst().as_deref(), Some("smaller"));
    }
}
