use std::collections::{HashSet, VecDeque};

use proptest::prelude::*;
use uuid::Uuid;

use super::asks::MAX_ASKED;
use super::*;

const LINGER: Duration = Duration::from_secs(10);

fn channel(n: u8) -> Filter {
    Filter::Channel(Uuid::from_u128(u128::from(n)).into())
}

/// Adds a watcher and returns what it sees.
fn watch(registry: &mut Registry, filter: Filter) -> watch::Receiver<Standing> {
    registry.watch(filter);
    registry.state(filter).unwrap()
}

fn connected() -> Registry {
    let mut registry = Registry::new(LINGER);
    registry.connected();
    registry
}

#[test]
fn a_channel_is_live_from_its_suback_on() {
    let now = Instant::now();
    let mut registry = connected();
    let standing = watch(&mut registry, channel(1));
    assert_eq!(*standing.borrow(), Standing::Pending);
    let (id, filters) = registry.next_subscribe(512, now).unwrap();
    assert_eq!(filters, [channel(1)]);
    assert_eq!(*standing.borrow(), Standing::Pending);
    assert_eq!(registry.answered(id, &[true], now).subscribed, 1);
    assert!(matches!(*standing.borrow(), Standing::Live { .. }));
    let second = watch(&mut registry, channel(1));
    assert!(matches!(*second.borrow(), Standing::Live { .. }));
    assert_eq!(
        registry.next_subscribe(512, now),
        None,
        "a second watcher asks for nothing"
    );
}

#[test]
fn a_broker_that_answers_slowly_but_steadily_is_given_its_time() {
    let start = Instant::now();
    let second = Duration::from_secs(1);
    let mut registry = connected();
    for n in 0..4 {
        registry.watch(channel(n));
    }
    let mut asked = Vec::new();
    while let Some((id, _)) = registry.next_subscribe(1, start) {
        asked.push(id);
    }
    assert_eq!(registry.unanswered_since(), Some(start));
    let mut now = start;
    for id in &asked[..3] {
        now += 20 * second;
        registry.answered(*id, &[true], now);
        assert_eq!(registry.unanswered_since(), Some(now));
    }
    registry.answered(asked[3], &[true], now);
    assert_eq!(registry.unanswered_since(), None);
}

#[test]
fn an_answer_older_than_the_last_unsubscribe_does_not_count() {
    let now = Instant::now();
    let mut registry = connected();
    registry.watch(channel(1));
    let (first, _) = registry.next_subscribe(512, now).unwrap();
    registry.leave(channel(1), true, now);
    let (_, unsubscribed) = registry.next_unsubscribe(512, now + LINGER).unwrap();
    assert_eq!(unsubscribed, [channel(1)]);
    let again = watch(&mut registry, channel(1));
    let (second, filters) = registry.next_subscribe(512, now).unwrap();
    assert_eq!(filters, [channel(1)]);
    registry.answered(first, &[true], now);
    assert_eq!(
        *again.borrow(),
        Standing::Pending,
        "that was before the UNSUBSCRIBE"
    );
    registry.answered(second, &[true], now);
    assert!(matches!(*again.borrow(), Standing::Live { .. }));
}

#[test]
fn lingering_begins_anew_with_every_last_watcher() {
    let start = Instant::now();
    let mut registry = connected();
    registry.watch(channel(1));
    let (id, _) = registry.next_subscribe(512, start).unwrap();
    registry.answered(id, &[true], start);
    registry.leave(channel(1), true, start);
    registry.watch(channel(1));
    assert_eq!(
        registry.next_unsubscribe(512, start + LINGER),
        None,
        "somebody watches"
    );
    registry.leave(channel(1), true, start + LINGER);
    let half = start + LINGER + LINGER / 2;
    assert_eq!(registry.next_unsubscribe(512, half), None, "it lingers");
    assert_eq!(registry.next_tick(), Some(start + 2 * LINGER));
    let unsubscribed = registry.next_unsubscribe(512, start + 2 * LINGER);
    assert_eq!(
        unsubscribed.map(|(_, filters)| filters),
        Some(vec![channel(1)])
    );
    assert_eq!(registry.len(), 0);
}

#[test]
fn what_need_not_linger_leaves_at_once_and_lingers_no_more() {
    let now = Instant::now();
    let mut registry = connected();
    for n in [1, 2] {
        registry.watch(channel(n));
    }
    let (id, _) = registry.next_subscribe(512, now).unwrap();
    registry.answered(id, &[true, true], now);
    registry.leave(channel(1), true, now);
    registry.leave(channel(2), false, now);
    assert_eq!(registry.next_tick(), Some(now));
    let (_, unsubscribed) = registry.next_unsubscribe(512, now).unwrap();
    assert_eq!(unsubscribed, [channel(2)]);
    registry.watch(channel(1));
    registry.leave(channel(1), false, now);
    let later = now + COLLECT;
    assert!(registry.next_unsubscribe(512, later).is_some());
    assert_eq!(registry.len(), 0, "also one that lingered before");
}

#[test]
fn what_is_left_before_it_was_asked_for_costs_the_broker_nothing() {
    let now = Instant::now();
    let mut registry = connected();
    for _ in 0..3 {
        for n in 0..=255 {
            registry.watch(channel(n));
        }
        for n in 0..=255 {
            registry.leave(channel(n), n % 2 == 0, now);
        }
    }
    assert_eq!((registry.len(), registry.queue.len()), (0, 0));
    assert_eq!(registry.next_subscribe(512, now), None);
    assert_eq!(registry.next_unsubscribe(512, now), None);
    assert_eq!(registry.next_tick(), None);
}

#[test]
fn unsubscribes_are_collected_unless_one_is_full() {
    let now = Instant::now();
    let mut registry = connected();
    let come_and_go = |registry: &mut Registry, n| {
        registry.watch(channel(n));
        let (id, _) = registry.next_subscribe(512, now).unwrap();
        registry.answered(id, &[true], now);
        registry.leave(channel(n), false, now);
    };
    come_and_go(&mut registry, 0);
    assert!(registry.next_unsubscribe(3, now).is_some(), "the first");
    for n in 1..=2 {
        come_and_go(&mut registry, n);
        assert_eq!(registry.next_unsubscribe(3, now), None);
    }
    assert_eq!(registry.next_tick(), Some(now + COLLECT));
    come_and_go(&mut registry, 3);
    let (_, full) = registry.next_unsubscribe(3, now).unwrap();
    assert_eq!(full.len(), 3);
    come_and_go(&mut registry, 4);
    let (_, collected) = registry.next_unsubscribe(3, now + COLLECT).unwrap();
    assert_eq!(collected, [channel(4)]);
}

#[test]
fn changes_are_told_once_and_a_change_of_the_connection_is_one_of_all() {
    let now = Instant::now();
    let mut registry = connected();
    assert!(registry.take_news().all);
    for n in [1, 2, 3] {
        registry.watch(channel(n));
    }
    let whoever_joins_looks_himself = registry.take_news();
    assert_eq!(whoever_joins_looks_himself, News::default());
    let (id, _) = registry.next_subscribe(512, now).unwrap();
    registry.answered(id, &[true, false, true], now);
    registry.leave(channel(3), false, now);
    registry.next_unsubscribe(512, now).unwrap();
    let news = registry.take_news();
    assert!(!news.all);
    assert_eq!(news.filters, HashSet::from([channel(1)]));
    assert_eq!(registry.take_news(), News::default());
    registry.disconnected();
    assert!(registry.take_news().all);
}

#[test]
fn a_refused_channel_stays_pending_and_is_asked_for_again() {
    let now = Instant::now();
    let mut registry = connected();
    let refused = watch(&mut registry, channel(1));
    let taken = watch(&mut registry, channel(2));
    let (id, filters) = registry.next_subscribe(512, now).unwrap();
    let codes: Vec<bool> = filters.iter().map(|filter| *filter == channel(2)).collect();
    assert_eq!(registry.answered(id, &codes, now).refused, [channel(1)]);
    assert_eq!(*refused.borrow(), Standing::Pending);
    assert!(matches!(*taken.borrow(), Standing::Live { .. }));
    let again = registry.next_tick().unwrap();
    assert!(again > now && again <= now + Duration::from_secs(1));
    registry.tick(again);
    let (id, filters) = registry.next_subscribe(512, again).unwrap();
    assert_eq!(filters, [channel(1)]);
    registry.answered(id, &[true], again);
    assert!(matches!(*refused.borrow(), Standing::Live { .. }));
}

#[test]
fn after_a_reconnect_everything_is_asked_for_and_generations_grow() {
    let now = Instant::now();
    let mut registry = connected();
    let standing = watch(&mut registry, channel(1));
    let (id, _) = registry.next_subscribe(512, now).unwrap();
    registry.answered(id, &[true], now);
    let Standing::Live { since: first } = *standing.borrow() else {
        panic!("{standing:?}");
    };
    registry.disconnected();
    let Standing::BrokerAway { generation } = *standing.borrow() else {
        panic!("{standing:?}");
    };
    assert!(generation > first);
    registry.answered(id, &[true], now);
    assert!(
        matches!(*standing.borrow(), Standing::BrokerAway { .. }),
        "an answer from before"
    );
    registry.connected();
    assert_eq!(*standing.borrow(), Standing::Pending);
    let (id, filters) = registry.next_subscribe(512, now).unwrap();
    assert_eq!(filters, [channel(1)]);
    registry.answered(id, &[true], now);
    let Standing::Live { since } = *standing.borrow() else {
        panic!("{standing:?}");
    };
    assert!(since > generation);
}

#[test]
fn outstanding_subscribes_are_few_and_of_bounded_size() {
    let now = Instant::now();
    let mut registry = connected();
    for n in 0..=255 {
        registry.watch(channel(n));
    }
    let mut ids = Vec::new();
    while let Some((id, filters)) = registry.next_subscribe(10, now) {
        assert!(filters.len() <= 10);
        ids.push(id);
    }
    assert_eq!(ids.len(), MAX_ASKED);
    registry.answered(ids[3], &[true; 10], now);
    assert!(registry.next_subscribe(10, now).is_some());
}

#[derive(Debug, Clone)]
enum Step {
    Watch(u8),
    Leave(u8, bool),
    Wait(u64),
    /// The broker reads and answers the n oldest packets.
    Answer(usize),
    Reconnect,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u8..6).prop_map(Step::Watch),
        4 => (0_u8..6, any::<bool>()).prop_map(|(n, lingers)| Step::Leave(n, lingers)),
        3 => (0_u64..15_000).prop_map(Step::Wait),
        4 => (1_usize..4).prop_map(Step::Answer),
        1 => Just(Step::Reconnect),
    ]
}

enum Packet {
    Subscribe(u16, Vec<Filter>),
    Unsubscribe(Vec<Filter>),
}

proptest! {
    /// With a broker that obeys in order: whenever a channel is reported live, the broker has it, and in
    /// the end the broker has exactly the watched channels.
    #[test]
    fn live_means_subscribed(steps in prop::collection::vec(step(), 0..200)) {
        let mut now = Instant::now();
        let mut registry = connected();
        let mut watched: Vec<(Filter, watch::Receiver<Standing>)> = Vec::new();
        let mut wire: VecDeque<Packet> = VecDeque::new();
        let mut broker: HashSet<Filter> = HashSet::new();
        // The last UNSUBSCRIBE may not be due yet.
        let settle = [
            Step::Wait(20_000),
            Step::Wait(1_000),
            Step::Answer(usize::MAX),
            Step::Answer(usize::MAX),
        ];
        for step in steps.into_iter().chain(settle) {
            match step {
                Step::Watch(n) => {
                    let standing = watch(&mut registry, channel(n));
                    watched.push((channel(n), standing));
                }
                Step::Leave(n, lingers) => {
                    if let Some(at) = watched.iter().position(|(filter, _)| *filter == channel(n)) {
                        watched.swap_remove(at);
                        registry.leave(channel(n), lingers, now);
                    }
                }
                Step::Wait(millis) => now += Duration::from_millis(millis),
                Step::Answer(count) => {
                    for _ in 0..count.min(wire.len()) {
                        match wire.pop_front().unwrap() {
                            Packet::Subscribe(id, filters) => {
                                broker.extend(&filters);
                                registry.answered(id, &vec![true; filters.len()], now);
                            }
                            Packet::Unsubscribe(filters) => {
                                for filter in filters {
                                    broker.remove(&filter);
                                }
                            }
                        }
                    }
                }
                Step::Reconnect => {
                    wire.clear();
                    broker.clear();
                    registry.disconnected();
                    registry.connected();
                }
            }
            registry.tick(now);
            while let Some((_, filters)) = registry.next_unsubscribe(2, now) {
                wire.push_back(Packet::Unsubscribe(filters));
            }
            while let Some((id, filters)) = registry.next_subscribe(2, now) {
                wire.push_back(Packet::Subscribe(id, filters));
            }
            for (filter, standing) in &watched {
                if matches!(*standing.borrow(), Standing::Live { .. }) {
                    // An UNSUBSCRIBE on its way would make it deaf, so there must be none.
                    prop_assert!(broker.contains(filter));
                    let leaving = wire.iter().any(|packet| matches!(packet, Packet::Unsubscribe(filters) if filters.contains(filter)));
                    prop_assert!(!leaving);
                }
            }
        }
        let wanted: HashSet<Filter> = watched.iter().map(|(filter, _)| *filter).collect();
        prop_assert_eq!(&broker, &wanted);
        for (_, standing) in &watched {
            let live = matches!(*standing.borrow(), Standing::Live { .. });
            prop_assert!(live);
        }
    }
}
