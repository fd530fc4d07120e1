use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::complaints::Complaints;

/// Whether the broker can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokerState {
    /// All connections are up.
    Up,
    /// At least one connection is down.
    Down {
        /// When the first of them went down; at first, the start.
        since: Instant,
    },
}

impl BrokerState {
    /// Whether all connections are up.
    pub fn is_up(self) -> bool {
        self == Self::Up
    }
}

/// Combines the states of several connections into one.
pub(crate) struct StateBoard {
    up: Mutex<Vec<bool>>,
    state: watch::Sender<BrokerState>,
    /// What the operator should know.
    pub(crate) complaints: Complaints,
}

impl StateBoard {
    /// At first, all connections are down.
    pub(crate) fn new(connections: usize) -> Self {
        let since = Instant::now();
        Self {
            up: Mutex::new(vec![false; connections]),
            state: watch::Sender::new(BrokerState::Down { since }),
            complaints: Complaints::default(),
        }
    }

    pub(crate) fn set(&self, connection: usize, up: bool) {
        let mut all = self.up.lock();
        all[connection] = up;
        let all_up = all.iter().all(|up| *up);
        self.state.send_if_modified(|state| {
            let changed = state.is_up() != all_up;
            if changed {
                *state = if all_up {
                    BrokerState::Up
                } else {
                    BrokerState::Down {
                        since: Instant::now(),
                    }
                };
            }
            changed
        });
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<BrokerState> {
        self.state.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_up_only_while_all_connections_stand() {
        let board = StateBoard::new(2);
        let state = board.subscribe();
        assert!(!state.borrow().is_up());
        board.set(0, true);
        assert!(!state.borrow().is_up());
        board.set(1, true);
        assert!(state.borrow().is_up());
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        board.set(0, false);
        let down = *state.borrow();
        board.set(1, false);
        assert_eq!(*state.borrow(), down, "the time of the first loss stands");
    }
}
