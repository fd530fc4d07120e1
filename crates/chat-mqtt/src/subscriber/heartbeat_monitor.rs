use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{info, warn};

use super::missing_heartbeats::{DEAF_AFTER, MissingHeartbeats};
use crate::BrokerUrl;
use crate::broker_state::StateBoard;
use crate::complaints::Fault;

/// Checks whether one connection receives the heartbeats that it should, and informs the operator.
pub(super) struct HeartbeatMonitor {
    number: usize,
    /// The filter that heartbeats match.
    filter: String,
    board: Arc<StateBoard>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    missing_heartbeats: MissingHeartbeats,
    broker: String,
}

impl HeartbeatMonitor {
    pub(super) fn new(number: usize, filter: String, board: Arc<StateBoard>) -> Self {
        Self {
            number,
            filter,
            board,
            state: Mutex::default(),
        }
    }

    /// Notes a new connection to this address. It is excused until its subscription is live.
    pub(super) fn connected(&self, broker: &BrokerUrl) {
        self.change(|state| {
            state.broker = broker.to_string();
            state.missing_heartbeats.excuse(true);
            None
        });
    }

    /// Notes that nothing can arrive from now on; or that it can again, and nothing is missing yet.
    pub(super) fn excuse(&self, excused: bool) {
        self.change(|state| {
            state.missing_heartbeats.excuse(excused);
            None
        });
    }

    /// Notes that the broker has recently accepted these heartbeats.
    pub(super) fn expect(&self, names: &[String], now: Instant) {
        self.change(|state| state.missing_heartbeats.expect(names, now));
    }

    /// Notes that a heartbeat has arrived: its publisher's name, padded with spaces.
    pub(super) fn heard(&self, payload: &[u8]) {
        // Anything but text is not a name.
        if let Ok(name) = std::str::from_utf8(payload.trim_ascii_end()) {
            self.change(|state| state.missing_heartbeats.heard(name));
        }
    }

    /// Makes a change that returns which heartbeat is missing after it, and reports that.
    fn change(&self, change: impl FnOnce(&mut State) -> Option<String>) {
        let mut state = self.state.lock();
        let complaints = &self.board.complaints;
        match change(&mut state) {
            None => {
                if complaints.clear(Fault::Deaf, self.number) {
                    info!(
                        connection = self.number,
                        "heartbeats arrive again, or are no longer expected"
                    );
                }
            }
            Some(name) => {
                let sentence = deaf(&state.broker, &self.filter, &name);
                if complaints.raise(Fault::Deaf, self.number, sentence.clone()) {
                    warn!(connection = self.number, "{sentence}");
                }
            }
        }
    }
}

fn deaf(broker: &str, filter: &str, name: &str) -> String {
    let seconds = DEAF_AFTER.as_secs();
    format!(
        "{broker} passes nothing on: for {seconds} s, chat-service's heartbeat {name} was accepted by its broker but did not arrive here through the subscription to {filter}. Either nodes of the broker are cut off from each other; or `mqtt.url` or `mqtt.topic_prefix` of chat-service differ from these; or the broker's access rules drop it silently; or the broker takes the filter literally. Until a heartbeat arrives, messages come from history, up to 2 s late"
    )
}
