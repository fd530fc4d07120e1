use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{info, warn};

use super::missing_heartbeats::{DEAF_AFTER, MissingHeartbeats};
use crate::BrokerUrl;
use crate::broker_state::StateBoard;
use crate::complaints::Fault;

/// Whether one connection hears what it should, and what whoever runs the service is told of it.
pub(super) struct HeartbeatMonitor {
    number: usize,
    /// The filter that heartbeats come by.
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

    /// A new connection to this address; it is excused until its subscription stands.
    pub(super) fn connected(&self, broker: &BrokerUrl) {
        self.change(|state| {
            state.broker = broker.to_string();
            state.missing_heartbeats.excuse(true);
            None
        });
    }

    /// Nothing can arrive from now on; or it can again, and nothing is missing yet.
    pub(super) fn excuse(&self, excused: bool) {
        self.change(|state| {
            state.missing_heartbeats.excuse(excused);
            None
        });
    }

    /// These heartbeats were taken by the broker, lately.
    pub(super) fn expect(&self, names: &[String], now: Instant) {
        self.change(|state| state.missing_heartbeats.expect(names, now));
    }

    /// A heartbeat has arrived: its publisher's name, and blanks.
    pub(super) fn heard(&self, payload: &[u8]) {
        // What is no text is nobody's name.
        if let Ok(name) = std::str::from_utf8(payload.trim_ascii_end()) {
            self.change(|state| state.missing_heartbeats.heard(name));
        }
    }

    /// Makes a change that says which heartbeat is missing after it, and tells of it.
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
        "{broker} passes nothing on: chat-service's heartbeat {name} was taken by its broker for {seconds} s and did not come here by the subscription to {filter}. Either nodes of the broker are cut off from each other; or `mqtt.url` or `mqtt.topic_prefix` of chat-service differ from these; or the broker's access rules drop it silently; or the broker takes the filter literally. Until one arrives, messages come from history, up to 2 s late"
    )
}
