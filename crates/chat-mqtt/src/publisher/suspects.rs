use std::collections::HashMap;

use super::Token;

/// After this many disconnects in a row, suspects are sent one at a time.
const DISCONNECTS_BEFORE_ISOLATION: u32 = 2;

/// After this many disconnects while it was alone in flight, a publish is set aside.
const DISCONNECTS_ALONE: u8 = 2;

/// Finds the publish that ends connections.
///
/// Some publishes make a broker end the connection: they exceed its limit, or its rules forbid them
/// (MQTT 3.1.1 has no other way to refuse, §3.3.5). The caller sends such a publish again after every
/// reconnect, so nothing behind it would ever get through. But a broker that merely flaps must not cost
/// good events. Therefore, every publish that was in flight at a disconnect is a suspect. If suspects are
/// in flight at a second disconnect in a row, they are sent alone from then on. Only a publish that was
/// alone in flight at two disconnects is set aside.
///
/// This works across reconnects because callers name a publish by the same [`Token`] each time.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    /// The value is the number of disconnects at which this publish was alone in flight.
    suspects: HashMap<Token, u8>,
    disconnects: u32,
}

impl Suspects {
    /// Whether this publish must be alone in flight.
    pub(super) fn must_go_alone(&self, token: Token) -> bool {
        self.disconnects >= DISCONNECTS_BEFORE_ISOLATION && self.suspects.contains_key(&token)
    }

    /// Notes that the broker accepted it.
    pub(super) fn acknowledged(&mut self, token: Token) {
        if self.suspects.is_empty() {
            return;
        }
        self.suspects.remove(&token);
        if self.suspects.is_empty() {
            self.disconnects = 0;
        }
    }

    /// Notes that a connection ended with these in flight; returns the one to set aside, if any. `lasted`
    /// means that the connection had been up for so long that earlier disconnects have nothing to do with
    /// this one.
    pub(super) fn disconnected(&mut self, in_flight: &[Token], lasted: bool) -> Option<Token> {
        if in_flight.is_empty() {
            return None;
        }
        let again = in_flight
            .iter()
            .any(|token| self.suspects.contains_key(token));
        if lasted || !again {
            self.suspects = in_flight.iter().map(|token| (*token, 0)).collect();
            self.disconnects = 1;
            return None;
        }
        let isolated = self.disconnects >= DISCONNECTS_BEFORE_ISOLATION;
        self.disconnects = self.disconnects.saturating_add(1);
        if !isolated {
            // Only what was in flight both times can have ended both connections.
            self.suspects.retain(|token, _| in_flight.contains(token));
            return None;
        }
        let [alone] = in_flight else {
            return None;
        };
        let times = self.suspects.get_mut(alone)?;
        *times += 1;
        if *times < DISCONNECTS_ALONE {
            return None;
        }
        self.acknowledged(*alone);
        Some(*alone)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A broker that ends the connection at each poison and otherwise flaps as told. A caller sends
    /// 0..count in order, and starts again at the first without an answer.
    fn run(count: u64, window: usize, poison: &[u64], flaps: &[usize]) -> (Vec<Token>, usize) {
        let mut suspects = Suspects::default();
        let mut done = vec![false; usize::try_from(count).unwrap()];
        let mut aside = Vec::new();
        let most = 20 * (poison.len() + flaps.len() + 1);
        let mut flaps = flaps.iter();
        let mut connections = 0;
        while done.iter().any(|done| !done) {
            connections += 1;
            assert!(connections < most, "it goes on for ever");
            let mut takes_before_flap = flaps.next().copied();
            let mut in_flight: Vec<Token> = Vec::new();
            let mut waiting: std::collections::VecDeque<Token> = (0..count)
                .filter(|n| !done[usize::try_from(*n).unwrap()])
                .map(Token)
                .collect();
            while !(waiting.is_empty() && in_flight.is_empty()) {
                while let Some(next) = waiting.front().copied() {
                    let must_wait = !in_flight.is_empty()
                        && (suspects.must_go_alone(next)
                            || in_flight.iter().any(|token| suspects.must_go_alone(*token)));
                    if must_wait || in_flight.len() >= window {
                        break;
                    }
                    in_flight.push(next);
                    waiting.pop_front();
                }
                let first = in_flight[0];
                let flap = takes_before_flap == Some(0);
                if flap || poison.contains(&first.0) {
                    break;
                }
                takes_before_flap = takes_before_flap.map(|left| left - 1);
                done[usize::try_from(first.0).unwrap()] = true;
                suspects.acknowledged(first);
                in_flight.remove(0);
            }
            if let Some(token) = suspects.disconnected(&in_flight, false) {
                done[usize::try_from(token.0).unwrap()] = true;
                aside.push(token);
            }
        }
        (aside, connections)
    }

    proptest! {
        #[test]
        fn exactly_the_poison_is_set_aside(
            count in 1_u64..40,
            window in 1_usize..20,
            picks in prop::collection::btree_set(0_u64..40, 0..4),
        ) {
            let poison: Vec<u64> = picks.into_iter().filter(|n| *n < count).collect();
            let (aside, connections) = run(count, window, &poison, &[]);
            prop_assert_eq!(aside.iter().map(|token| token.0).collect::<Vec<_>>(), poison.clone());
            prop_assert!(connections <= 1 + 4 * poison.len(), "{connections} connections");
        }

        #[test]
        fn a_flapping_broker_that_takes_something_each_time_costs_nothing(
            count in 1_u64..40,
            window in 1_usize..20,
            flaps in prop::collection::vec(1_usize..5, 0..20),
        ) {
            let (aside, _) = run(count, window, &[], &flaps);
            prop_assert!(aside.is_empty(), "{aside:?}");
        }
    }

    #[test]
    fn a_window_lost_twice_is_not_set_aside() {
        let mut suspects = Suspects::default();
        let window: Vec<Token> = (0..100).map(Token).collect();
        for _ in 0..10 {
            assert_eq!(suspects.disconnected(&window, false), None);
        }
    }

    #[test]
    fn a_connection_that_lasted_starts_the_count_anew() {
        let mut suspects = Suspects::default();
        for _ in 0..10 {
            assert_eq!(suspects.disconnected(&[Token(7)], true), None);
        }
        assert!(!suspects.must_go_alone(Token(7)));
    }
}
