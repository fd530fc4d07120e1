//! The side-by-side run: every peer in turn, round after round.

use std::cell::RefCell;
use std::io;
use std::process::Command;
use std::time::{Duration, Instant};

use chat_model::format_timestamp;
use clock::SystemClock;

use crate::configuration;
use crate::machine::{Machine, commit, fsync};
use crate::peers::{self, Peer, Place, Programs};
use crate::record::{LoadRecord, Record, Row, ServerRecord};
use crate::scenario::{self, Kind, Reading, Scenario};

/// What to compare, and where.
pub(crate) struct Comparison {
    pub(crate) programs: Programs,
    pub(crate) quick: bool,
    pub(crate) rounds: usize,
    /// No further round begins when it would probably end later than this.
    pub(crate) limit: Duration,
    /// Names of peers; empty means all.
    pub(crate) only: Vec<String>,
    /// Parts of names of scenarios; empty means all.
    pub(crate) scenarios: Vec<String>,
    pub(crate) server_processor: usize,
    pub(crate) load_processor: usize,
}

impl Comparison {
    /// Runs everything and tells on standard error how far it is. `save` is given what there is
    /// after each round.
    pub(crate) fn run(
        &self,
        command: String,
        save: impl Fn(&Record) -> io::Result<()>,
    ) -> io::Result<Record> {
        let processors = pin_to(self.load_processor)?;
        let (installed, missing): (Vec<_>, Vec<_>) = peers::all()
            .into_iter()
            .filter(|peer| self.is_chosen(peer.as_ref()))
            .partition(|peer| self.is_installed(peer.as_ref()));
        let mut scenarios = scenario::all(self.quick);
        let ids: Vec<&str> = scenarios.iter().map(|scenario| scenario.id).collect();
        scenarios.retain(|scenario| self.is_asked_for(scenario, &ids));
        let mut record = self.empty(processors, command, &scenarios, &installed, &missing)?;
        let turns: Vec<_> = (1..=self.rounds)
            .flat_map(|round| self.turns(round, &scenarios, &installed))
            .collect();
        let mut progress = Progress::new(turns.len());
        for (index, turn) in turns.iter().enumerate() {
            let begins = index
                .checked_sub(1)
                .is_none_or(|before| turns[before].round < turn.round);
            if begins && turn.round > 1 {
                save(&record)?;
                let round = turns.iter().filter(|other| other.round == turn.round);
                let late = progress.elapsed() + progress.expected(round.count());
                if late > self.limit {
                    eprintln!("no time for round {} of {}", turn.round, self.rounds);
                    break;
                }
            }
            if begins {
                record.fsync.push(fsync()?);
            }
            let (scenario, peer) = (&scenarios[turn.scenario], installed[turn.peer].as_ref());
            eprint!(
                "[{}] round {} of {}, {}, {}: ",
                progress.left(),
                turn.round,
                self.rounds,
                scenario.id,
                peer.name()
            );
            let outcome = self.measure(peer, scenario, turn.scenario, |configuration| {
                let server = &mut record.servers[turn.peer];
                configuration::add(&mut server.configuration, configuration);
            });
            progress.done += 1;
            let said = outcome
                .as_ref()
                .map_or_else(ToString::to_string, Reading::summary);
            eprintln!("{said}");
            let rows = &mut record.loads[turn.scenario].rows;
            let Some(row) = rows.iter_mut().find(|row| row.peer == peer.name()) else {
                continue;
            };
            match outcome {
                Ok(reading) => row.readings.push(reading),
                Err(error) => row.failures.push(error.to_string()),
            }
        }
        save(&record)?;
        Ok(record)
    }

    /// One round: each load on each of its servers in turn, so that what is compared is
    /// measured soon after each other.
    fn turns(
        &self,
        round: usize,
        scenarios: &[Scenario],
        installed: &[Box<dyn Peer>],
    ) -> Vec<Turn> {
        let mut turns = Vec::new();
        for (scenario, load) in scenarios.iter().enumerate() {
            if load.once && round > 1 {
                continue;
            }
            let peers = installed.iter().enumerate();
            let peers = peers.filter(|(_, peer)| self.is_for(load, peer.as_ref()));
            turns.extend(peers.map(|(peer, _)| Turn {
                round,
                scenario,
                peer,
            }));
        }
        turns
    }

    /// One load on a fresh server: what one load leaves behind is not measured with the next.
    fn measure(
        &self,
        peer: &dyn Peer,
        scenario: &Scenario,
        run: usize,
        configured: impl FnOnce(Vec<(String, String)>),
    ) -> io::Result<Reading> {
        let folder = tempfile::tempdir()?;
        let (server, load) = (self.server_processor, self.load_processor);
        let (processors, streaming) = match scenario.kind {
            Kind::Processors(1) => (vec![load], vec![server]),
            Kind::Processors(_) => (vec![load], vec![server, load]),
            _ => (vec![server], vec![server]),
        };
        let place = Place {
            programs: &self.programs,
            processors,
            streaming,
            folder: folder.path(),
            history: scenario.needs_history(),
            written: RefCell::default(),
        };
        let running = peer.start(&place)?;
        configured(configuration::of(&running, &place));
        scenario.run(&running, u32::try_from(run).unwrap_or(u32::MAX))
    }

    /// Named on the command line, or part of a run of this kind.
    fn is_asked_for(&self, scenario: &Scenario, ids: &[&str]) -> bool {
        if self.scenarios.is_empty() {
            return scenario.quick || !self.quick;
        }
        let mut parts = self.scenarios.iter();
        parts.any(|part| {
            if ids.contains(&part.as_str()) {
                scenario.id == part
            } else {
                scenario.name.contains(part)
            }
        })
    }

    /// A quick run has only those that are installed everywhere, unless others are named.
    fn is_for(&self, scenario: &Scenario, peer: &dyn Peer) -> bool {
        const QUICK: [&str; 5] = ["feed", "floor", "hark", "nchan", "centrifugo"];
        let named = !self.only.is_empty();
        scenario.servers.contains(&peer.name())
            && (!self.quick || named || QUICK.contains(&peer.name()))
    }

    fn is_chosen(&self, peer: &dyn Peer) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == peer.name())
    }

    /// Ours need no program.
    fn is_installed(&self, peer: &dyn Peer) -> bool {
        const OURS: [&str; 4] = ["feed", "floor", "hark", "axum"];
        let program = peer.program();
        program.map_or(OURS.contains(&peer.name()), |name| {
            self.programs.find(name).is_some()
        })
    }

    /// What is known before the first round.
    fn empty(
        &self,
        processors: usize,
        command: String,
        scenarios: &[Scenario],
        installed: &[Box<dyn Peer>],
        missing: &[Box<dyn Peer>],
    ) -> io::Result<Record> {
        let now = SystemClock::shared().now().as_millis();
        let commit = commit();
        let ours = format!("{} of commit {commit}", env!("CARGO_PKG_VERSION"));
        let server = |peer: &dyn Peer, version| ServerRecord {
            name: peer.name().to_owned(),
            version,
            setup: peer.setup().to_owned(),
            configuration: Vec::new(),
        };
        let servers = installed.iter().map(|peer| {
            let version = self.programs.version(peer.as_ref());
            // What another's program does not tell is unknown, not ours.
            let untold = peer.program().map_or(ours.as_str(), |_| "unknown");
            server(peer.as_ref(), version.or_else(|| Some(untold.to_owned())))
        });
        let missing = missing.iter().map(|peer| server(peer.as_ref(), None));
        let loads = scenarios.iter().map(|scenario| {
            let peers = installed.iter().map(AsRef::as_ref);
            let peers = peers.filter(|peer| self.is_for(scenario, *peer));
            LoadRecord {
                rows: peers.map(|peer| Row::of(peer.name())).collect(),
                ..LoadRecord::of(scenario)
            }
        });
        Ok(Record {
            // A clock before 1970 is as good as one at 1970.
            date: format_timestamp(u64::try_from(now).unwrap_or(0)),
            commit: commit.clone(),
            machine: Machine::read(processors)?,
            fsync: Vec::new(),
            pinned: [self.server_processor, self.load_processor],
            commands: vec![command],
            servers: servers.chain(missing).collect(),
            loads: loads.collect(),
        })
    }
}

/// One load on one server.
struct Turn {
    round: usize,
    scenario: usize,
    peer: usize,
}

/// How long a run takes.
struct Progress {
    begin: Instant,
    done: usize,
    all: usize,
}

impl Progress {
    fn new(all: usize) -> Self {
        Self {
            begin: Instant::now(),
            done: 0,
            all,
        }
    }

    fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }

    /// How long so many turns will take, by those that are done.
    fn expected(&self, turns: usize) -> Duration {
        let done = self.done.max(1) as f64;
        self.elapsed().mul_f64(turns as f64 / done)
    }

    /// For whoever waits.
    fn left(&self) -> String {
        if self.done == 0 {
            return format!("{} turns", self.all);
        }
        let seconds = self.expected(self.all - self.done).as_secs();
        format!("{}:{:02} left", seconds / 60, seconds % 60)
    }
}

/// Pins this process; returns how many processors the machine has.
fn pin_to(processor: usize) -> io::Result<usize> {
    let processors = std::thread::available_parallelism()?.get();
    let status = Command::new("taskset")
        .args(["--pid", "--cpu-list", &processor.to_string()])
        .arg(std::process::id().to_string())
        .stdout(std::process::Stdio::null())
        .status()?;
    if !status.success() {
        return Err(io::Error::other(format!(
            "the load generator cannot be pinned to processor {processor}: the comparison needs two"
        )));
    }
    Ok(processors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_follows_from_the_turns_that_are_done() {
        let mut progress = Progress::new(10);
        assert_eq!(progress.left(), "10 turns");
        progress.begin = Instant::now() - Duration::from_secs(120);
        progress.done = 4;
        // 30 s each, and six to come.
        assert_eq!(progress.left(), "3:00 left");
        assert_eq!(progress.expected(2).as_secs(), 60);
    }
}
