//! The processes of a cluster, by what they are part of.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use system_tests::{Cluster, Node};

use crate::process::{self, Sample};

/// A kind of process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Chat,
    Sse,
    Broker,
    Store,
    Front,
}

impl Part {
    pub(super) const ALL: [Self; 5] = [
        Self::Chat,
        Self::Sse,
        Self::Broker,
        Self::Store,
        Self::Front,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat-service",
            Self::Sse => "broadcast-sse",
            Self::Broker => "broker",
            Self::Store => "PostgreSQL",
            Self::Front => "nginx",
        }
    }
}

/// Every process of a cluster at one moment.
pub(super) struct Look(BTreeMap<(Part, u32), Sample>);

impl Look {
    pub(super) fn at(cluster: &Cluster) -> io::Result<Self> {
        let pids = |nodes: &[Node]| nodes.iter().map(|node| node.process().pid()).collect();
        let all: [(Part, Vec<u32>); 5] = [
            (Part::Chat, pids(&cluster.chat)),
            (Part::Sse, pids(&cluster.sse)),
            (Part::Broker, cluster.broker.pids()),
            (Part::Store, vec![cluster.store.pid()]),
            (Part::Front, vec![cluster.front.process().pid()]),
        ];
        let mut look = BTreeMap::new();
        for (part, pids) in all {
            for pid in pids {
                look.insert((part, pid), Sample::of(pid)?);
                // PostgreSQL has a process for each connection; one may end meanwhile.
                for child in process::children(pid)? {
                    if let Ok(sample) = Sample::of(child) {
                        look.insert((part, child), sample);
                    }
                }
            }
        }
        Ok(Self(look))
    }

    /// The processor time of a part since an earlier look.
    pub(super) fn spent(&self, part: Part, before: &Self) -> Duration {
        let mine = self.0.iter().filter(|((of, _), _)| *of == part);
        mine.map(|(key, now)| {
            before
                .0
                .get(key)
                .map_or(Duration::ZERO, |then| now.since(then))
        })
        .sum()
    }

    /// Resident bytes of a part.
    pub(super) fn resident(&self, part: Part) -> u64 {
        let mine = self.0.iter().filter(|((of, _), _)| *of == part);
        mine.map(|(_, sample)| sample.resident).sum()
    }
}
