//! The operations of the model, in any order.

use proptest::prelude::*;

/// One operation. The numbers choose among what there is.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Post,
    /// The broker delivers one of the messages under way, perhaps twice, in any order.
    Deliver {
        node: usize,
        which: usize,
        again: bool,
    },
    Lose {
        node: usize,
        which: usize,
    },
    /// Maintenance checks what there is to do.
    Attend {
        node: usize,
    },
    /// The store reads for one of the requests under way.
    Read {
        node: usize,
        which: usize,
    },
    /// The answer to one of the requests arrives.
    Answer {
        node: usize,
        which: usize,
    },
    /// The broker connection came back.
    HearAfresh {
        node: usize,
    },
    Listen {
        room: usize,
    },
    /// The listener reconnects with its cursor, to any node.
    Reconnect {
        node: usize,
    },
    /// Retention removes the oldest.
    Expire {
        count: u64,
    },
    /// The log is restored from a copy that lacks the newest events, and gets a new epoch.
    CutBack {
        count: u64,
    },
    /// The same, but the copy is older than the log: the next post begins another log.
    Forget,
    /// The store's clock is set ahead or back.
    SetClock {
        to: u64,
    },
    /// An event can no longer be read.
    Damage {
        which: usize,
    },
    /// A node frees memory.
    Shrink {
        node: usize,
    },
    /// Somebody else publishes an event with a number near the head.
    Forge {
        ahead: i64,
        epoch_too: bool,
    },
}

/// `forging`: whether somebody else also publishes. `clocks`: whether the store's clock is set, and copies
/// may be older than the log.
pub(super) fn ops(forging: bool, clocks: bool) -> impl Strategy<Value = Vec<Op>> {
    let node = 0..2_usize;
    let which = any::<prop::sample::Index>().prop_map(|index| index.index(1_000));
    let forge = (-2..4_i64, prop::bool::weighted(0.1))
        .prop_map(|(ahead, epoch_too)| Op::Forge { ahead, epoch_too });
    let op = prop_oneof![
        6 => Just(Op::Post),
        8 => (node.clone(), which.clone(), prop::bool::weighted(0.2))
            .prop_map(|(node, which, again)| Op::Deliver { node, which, again }),
        2 => (node.clone(), which.clone()).prop_map(|(node, which)| Op::Lose { node, which }),
        6 => node.clone().prop_map(|node| Op::Attend { node }),
        6 => (node.clone(), which.clone()).prop_map(|(node, which)| Op::Read { node, which }),
        6 => (node.clone(), which.clone()).prop_map(|(node, which)| Op::Answer { node, which }),
        1 => which.prop_map(|which| Op::Damage { which }),
        1 => node.clone().prop_map(|node| Op::HearAfresh { node }),
        8 => (1..2_000_usize).prop_map(|room| Op::Listen { room }),
        2 => node.clone().prop_map(|node| Op::Reconnect { node }),
        1 => (1..6_u64).prop_map(|count| Op::Expire { count }),
        1 => (0..6_u64).prop_map(|count| Op::CutBack { count }),
        1 => node.prop_map(|node| Op::Shrink { node }),
    ];
    let clock = prop_oneof![
        1 => Just(Op::Forget),
        2 => (500..3_000_u64).prop_map(|to| Op::SetClock { to }),
    ];
    let op = match (forging, clocks) {
        (true, _) => prop_oneof![50 => op, 8 => forge].boxed(),
        (false, true) => prop_oneof![50 => op, 4 => clock].boxed(),
        (false, false) => op.boxed(),
    };
    prop::collection::vec(op, 1..120)
}
