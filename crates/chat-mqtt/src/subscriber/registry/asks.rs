use std::collections::VecDeque;

use tokio::time::Instant;

use super::Filter;

/// The SUBSCRIBEs without a SUBACK, and the packet ids.
#[derive(Debug, Default)]
pub(super) struct Asks {
    /// Oldest first.
    unanswered: VecDeque<Ask>,
    last_number: u64,
    last_packet_id: u16,
}

/// One SUBSCRIBE.
#[derive(Debug)]
pub(super) struct Ask {
    packet_id: u16,
    /// Unique among all SUBSCRIBEs of this connection.
    pub(super) number: u64,
    at: Instant,
    pub(super) filters: Vec<Filter>,
}

/// How many SUBSCRIBEs may wait for their SUBACK. Enough to keep a broker busy, few enough that
/// deliveries are not held up behind a hundred thousand filters.
pub(super) const MAX_ASKED: usize = 8;

impl Asks {
    /// Whether too many are unanswered to send more.
    pub(super) fn is_full(&self) -> bool {
        self.unanswered.len() >= MAX_ASKED
    }

    /// The number that the next SUBSCRIBE will have.
    pub(super) fn next_number(&self) -> u64 {
        self.last_number + 1
    }

    /// Notes a SUBSCRIBE and returns its packet id.
    pub(super) fn begin(&mut self, filters: Vec<Filter>, now: Instant) -> u16 {
        self.last_number += 1;
        let packet_id = self.packet_id();
        self.unanswered.push_back(Ask {
            packet_id,
            number: self.last_number,
            at: now,
            filters,
        });
        packet_id
    }

    /// Takes the SUBSCRIBE that a SUBACK answers; `None` if there is none with this packet id.
    pub(super) fn take(&mut self, packet_id: u16) -> Option<Ask> {
        let at = self
            .unanswered
            .iter()
            .position(|ask| ask.packet_id == packet_id)?;
        self.unanswered.remove(at)
    }

    /// Since when a SUBSCRIBE has waited for its answer without an answer to any other.
    pub(super) fn unanswered_since(&self) -> Option<Instant> {
        self.unanswered.front().map(|ask| ask.at)
    }

    /// Restarts the time limit of all of them.
    pub(super) fn excuse_silence(&mut self, now: Instant) {
        for ask in &mut self.unanswered {
            ask.at = now;
        }
    }

    /// Forgets everything, because the connection is gone.
    pub(super) fn clear(&mut self) {
        self.unanswered.clear();
    }

    /// An id that no unanswered SUBSCRIBE has. UNSUBACKs are ignored: some brokers send none for a filter
    /// that they did not know, others several for one packet.
    pub(super) fn packet_id(&mut self) -> u16 {
        loop {
            self.last_packet_id = self.last_packet_id.checked_add(1).unwrap_or(1);
            let id = self.last_packet_id;
            if self.unanswered.iter().all(|ask| ask.packet_id != id) {
                return id;
            }
        }
    }
}
