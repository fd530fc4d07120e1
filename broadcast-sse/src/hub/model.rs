//! A model of the listener's side: two nodes, one listener, one log, and everything that can go
//! wrong between them, in any order. Whatever happens, the listener sees 1..n in order, once, or
//! a gap that says exactly what is missing.

mod listener;
mod log;
mod node;
mod op;

use std::collections::{BTreeMap, BTreeSet};

use chat_model::Position;
use proptest::prelude::*;
use uuid::Uuid;

use super::reader::{Item, Reader, Start, Step};
use listener::Listener;
use log::Log;
use node::{Asked, Node, Question};
use op::{Op, ops};

struct World {
    log: Log,
    nodes: [Node; 2],
    listener: Listener,
}

impl World {
    fn new() -> Self {
        let channel = Uuid::nil().into();
        let log = Log {
            channel,
            epochs: Vec::new(),
            events: BTreeMap::new(),
            damaged: BTreeSet::new(),
            head: 0,
            first: 1,
            expired: 0,
            is_another: false,
            made: 0,
            clock: 1_000,
        };
        let nodes = [Node::new(), Node::new()];
        let reader = Reader::new(channel, Start::Live, nodes[0].tail.mark());
        let listener = Listener {
            node: 0,
            reader,
            at: None,
            seen: BTreeMap::new(),
            damaged: BTreeSet::new(),
            owed_from: 1,
        };
        Self {
            log,
            nodes,
            listener,
        }
    }

    fn run(&mut self, op: &Op) -> Result<(), TestCaseError> {
        match *op {
            Op::Post => {
                let entry = self.log.post();
                for node in &mut self.nodes {
                    node.under_way.push(entry.clone());
                }
            }
            Op::Deliver { node, which, again } => {
                let node = &mut self.nodes[node];
                if !node.under_way.is_empty() {
                    let which = which % node.under_way.len();
                    let entry = node.under_way[which].clone();
                    if !again {
                        node.under_way.remove(which);
                    }
                    node.hear(&entry);
                }
            }
            Op::Lose { node, which } => {
                let under_way = &mut self.nodes[node].under_way;
                if !under_way.is_empty() {
                    let which = which % under_way.len();
                    under_way.remove(which);
                }
            }
            Op::Attend { node } => self.nodes[node].maintain(),
            Op::Read { node, which } => self.nodes[node].read(which, &self.log),
            Op::Answer { node, which } => self.nodes[node].answer(which),
            Op::HearAfresh { node } => self.nodes[node].tail.starts_afresh(),
            Op::Listen { room } => self.listen(room)?,
            Op::Reconnect { node } => self.reconnect(node),
            Op::Expire { count } => self.log.expire(count),
            Op::CutBack { count } => self.log.cut_back(count),
            Op::Forget => {
                self.log.forget();
                if self.listener.at.is_some() {
                    // The listener has had nothing of the other log.
                    self.listener.owed_from = 1;
                }
            }
            Op::SetClock { to } => self.log.clock = to,
            Op::Damage { which } => self.log.damage(which),
            Op::Shrink { node } => self.nodes[node].tail.shrink_to(500),
            Op::Forge { ahead, epoch_too } => {
                if let Some(entry) = self.log.forge(ahead, epoch_too) {
                    for node in &mut self.nodes {
                        node.under_way.push(entry.clone());
                    }
                }
            }
        }
        Ok(())
    }

    fn reconnect(&mut self, node: usize) {
        let start = self.listener.at.map_or(Start::Live, Start::After);
        self.listener.node = node;
        self.listener.reader = Reader::new(self.log.channel, start, self.nodes[node].tail.mark());
    }

    fn listen(&mut self, room: usize) -> Result<(), TestCaseError> {
        let listener = &mut self.listener;
        let node = &mut self.nodes[listener.node];
        let items = match listener.reader.step(&node.tail, room) {
            Step::Items(items) => items,
            Step::Waits => Vec::new(),
            Step::NeedsHead => {
                node.head_wanted = true;
                Vec::new()
            }
            Step::NeedsPage(position) => {
                let good = node.page.as_ref().filter(|(generation, page)| {
                    *generation == node.tail.generation() && page.leads_on_from(position.seq)
                });
                if let Some((_, page)) = good {
                    listener.reader.take_page(page, room, node.tail.mark())
                } else {
                    let ask = node.tail.ask();
                    let question = Question::Page {
                        after: position.seq,
                        fill: false,
                    };
                    node.asked.push(Asked {
                        ask,
                        question,
                        read: None,
                        generation: node.tail.generation(),
                    });
                    Vec::new()
                }
            }
        };
        for item in items {
            listener.take(item, &self.log)?;
        }
        // The stream sends `ready` with its cursor, which is where a live start begins.
        if listener.at.is_none() && listener.reader.is_ready(&node.tail) {
            listener.at = listener.reader.position();
            listener.owed_from = listener.at.unwrap().seq + 1;
        }
        Ok(())
    }

    /// From now on nothing goes wrong, and in the end the heads are compared.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        for round in 0..400 {
            for node in &mut self.nodes {
                for entry in std::mem::take(&mut node.under_way) {
                    node.hear(&entry);
                }
                node.head_wanted |= round % 100 == 99;
                node.maintain();
                while !node.asked.is_empty() {
                    node.read(0, &self.log);
                    node.answer(0);
                }
            }
            self.listen(10_000)?;
        }
        Ok(())
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let listener = &self.listener;
        let node = &self.nodes[listener.node];
        prop_assert!(listener.reader.is_ready(&node.tail));
        prop_assert_eq!(node.tail.known().unwrap().seq, self.log.head);
        prop_assert_eq!(listener.at.unwrap().seq, self.log.head);
        for (seq, entry) in self.log.events.range(listener.owed_from..) {
            let Some(seen) = listener.seen.get(seq) else {
                let damaged = self.log.damaged.contains(seq) && listener.damaged.contains(seq);
                prop_assert!(damaged, "event {} is missing", seq);
                continue;
            };
            // A listener that has already seen a forged event cannot unsee it.
            prop_assert!(
                log::is_forged(seen) || seen.line() == entry.line(),
                "event {} is another",
                seq
            );
        }
        for node in &self.nodes {
            self.check_later_joiner(node)?;
        }
        Ok(())
    }

    /// A listener that joins now gets every event as the store has it, if the broker has delivered it.
    fn check_later_joiner(&self, node: &Node) -> Result<(), TestCaseError> {
        let start = Start::After(Position::default());
        let mut reader = Reader::new(self.log.channel, start, node.tail.mark());
        loop {
            let items = match reader.step(&node.tail, 10_000) {
                Step::Items(items) => items,
                Step::NeedsPage(position) => {
                    let page = self.log.page(position.seq);
                    reader.take_page(&page, 10_000, node.tail.mark())
                }
                Step::Waits | Step::NeedsHead => break,
            };
            prop_assert!(!items.is_empty(), "it goes on");
            for item in items {
                let Item::Event(entry) = item else { continue };
                let delivered = node.delivered.contains(&entry.position);
                prop_assert!(
                    !delivered || !log::is_forged(&entry),
                    "event {} is another",
                    entry.seq()
                );
            }
        }
        let at = reader.position().map_or(0, |at| at.seq);
        prop_assert_eq!(at, self.log.head);
        Ok(())
    }
}

fn run(ops: &[Op]) -> Result<(), TestCaseError> {
    let mut world = World::new();
    for op in ops {
        world.run(op)?;
    }
    world.settle()?;
    world.check()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100_000, ..ProptestConfig::default() })]

    #[test]
    fn a_listener_sees_every_event_once_in_order_or_is_told(ops in ops(false, false)) {
        run(&ops)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30_000, ..ProptestConfig::default() })]

    #[test]
    fn what_others_publish_does_not_stay(ops in ops(true, false)) {
        run(&ops)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 50_000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_in_silence_whatever_clocks_say(ops in ops(false, true)) {
        run(&ops)?;
    }
}
