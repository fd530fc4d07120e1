use std::collections::VecDeque;

/// The publishes that wait for their PUBACK, by packet id.
///
/// Brokers acknowledge in the order of the publishes (MQTT 3.1.1 §4.6), so an acknowledgement normally
/// matches the front. One that is out of order is searched for and also found.
#[derive(Debug)]
pub(super) struct Window<W> {
    waiting: VecDeque<(u16, W)>,
    /// One bit for each of the 65,536 packet ids: whether it is in use.
    held: Box<[u64; 1024]>,
    last_id: u16,
    limit: usize,
}

impl<W> Window<W> {
    /// At most `limit` publishes wait at once. That is fewer than there are packet ids.
    pub(super) fn new(limit: u16) -> Self {
        Self {
            waiting: VecDeque::new(),
            held: Box::new([0; 1024]),
            last_id: 0,
            limit: usize::from(limit.clamp(1, u16::MAX - 1)),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= self.limit
    }

    /// Adds a publish and returns its packet id. The window must not be full.
    pub(super) fn enter(&mut self, waiter: W) -> u16 {
        debug_assert!(!self.is_full(), "the caller asks is_full first");
        loop {
            // Packet ids are never 0 (MQTT 3.1.1 §2.3.1).
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            let (word, bit) = place(self.last_id);
            if self.held[word] & bit == 0 {
                self.held[word] |= bit;
                break;
            }
        }
        self.waiting.push_back((self.last_id, waiter));
        self.last_id
    }

    /// What waited for this PUBACK; `None` if nothing did.
    pub(super) fn acknowledge(&mut self, id: u16) -> Option<W> {
        let (word, bit) = place(id);
        if self.held[word] & bit == 0 {
            return None;
        }
        self.held[word] &= !bit;
        let at = self.waiting.iter().position(|(held, _)| *held == id)?;
        self.waiting.remove(at).map(|(_, waiter)| waiter)
    }

    /// The publish that has waited longest.
    pub(super) fn oldest(&self) -> Option<&W> {
        self.waiting.front().map(|(_, waiter)| waiter)
    }

    /// Everything that waits, oldest first; the window is empty afterwards.
    pub(super) fn drain(&mut self) -> Vec<W> {
        self.held.fill(0);
        self.waiting.drain(..).map(|(_, waiter)| waiter).collect()
    }
}

fn place(id: u16) -> (usize, u64) {
    (usize::from(id >> 6), 1 << (id & 63))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Enter,
        /// Acknowledges the n-th waiting publish, modulo their number.
        Acknowledge(usize),
        AcknowledgeUnknown(u16),
        Drain,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            10 => Just(Step::Enter),
            6 => Just(Step::Acknowledge(0)),
            2 => any::<usize>().prop_map(Step::Acknowledge),
            1 => any::<u16>().prop_map(Step::AcknowledgeUnknown),
            1 => Just(Step::Drain),
        ]
    }

    proptest! {
        #[test]
        fn every_publish_is_answered_once_with_its_own_acknowledgement(
            limit in 1_u16..50,
            first_id in any::<u16>(),
            steps in prop::collection::vec(step(), 0..400),
        ) {
            let mut window = Window::new(limit);
            window.last_id = first_id;
            let mut model: BTreeMap<u64, u16> = BTreeMap::new();
            let mut next = 0_u64;
            for step in steps {
                match step {
                    Step::Enter => {
                        prop_assert_eq!(window.is_full(), model.len() == usize::from(limit));
                        if !window.is_full() {
                            let id = window.enter(next);
                            prop_assert!(id != 0 && model.values().all(|held| *held != id));
                            model.insert(next, id);
                            next += 1;
                        }
                    }
                    Step::Acknowledge(n) => {
                        let known = model.iter().nth(n % model.len().max(1)).map(|(w, id)| (*w, *id));
                        if let Some((waiter, id)) = known {
                            prop_assert_eq!(window.acknowledge(id), Some(waiter));
                            model.remove(&waiter);
                        }
                    }
                    Step::AcknowledgeUnknown(id) => {
                        if model.values().all(|held| *held != id) {
                            prop_assert_eq!(window.acknowledge(id), None);
                        }
                    }
                    Step::Drain => {
                        prop_assert_eq!(window.drain(), model.keys().copied().collect::<Vec<_>>());
                        model.clear();
                    }
                }
                prop_assert_eq!(window.oldest(), model.keys().next());
                prop_assert_eq!(window.is_empty(), model.is_empty());
            }
        }
    }

    #[test]
    fn a_publish_that_is_never_acknowledged_keeps_its_id_while_others_wrap_around() {
        let mut window = Window::new(2);
        let stuck = window.enter("stuck");
        for _ in 0..200_000 {
            let id = window.enter("passing");
            assert_ne!(id, stuck);
            assert_eq!(window.acknowledge(id), Some("passing"));
        }
        assert_eq!(window.acknowledge(stuck), Some("stuck"));
    }
}
