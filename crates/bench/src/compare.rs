//! The side-by-side run: every peer in turn, round after round.

use std::cell::RefCell;
use std::io;
use std::process::Command;
use std::time::{Duration, Instant};

use chat_model::format_timestamp;
use service_kit::clock::SystemClock;

use crate::machine::Machine;
use crate::peers::{self, Peer, Place, Programs, Running};
use crate::record::{LoadRecord, Record, Row, ServerRecord};
use crate::scenario::{self, Reading, Scenario};

/// What to compare, and where.
pub(crate) struct Comparison {
    pub(crate) programs: Programs,
    pub(crate) quick: bool,
    pub(crate) rounds: usize,
    /// No further round begins when it would probably end later than this.
    pub(crate) limit: Option<Duration>,
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
        let scenarios: Vec<_> = scenario::all(self.quick)
            .into_iter()
            .filter(|scenario| {
                let mut parts = self.scenarios.iter();
                self.scenarios.is_empty() || parts.any(|part| scenario.name.contains(part))
            })
            .collect();
        let mut record = self.empty(processors, command, &scenarios, &installed, &missing)?;
        let begin = Instant::now();
        let mut done = 0;
        for round in 1..=self.rounds {
            let each = begin.elapsed() / u32::try_from(done.max(1)).unwrap_or(1);
            let late = |limit: Duration| done > 0 && begin.elapsed() + each > limit;
            if self.limit.is_some_and(late) {
                break;
            }
            for (index, peer) in installed.iter().enumerate() {
                eprintln!("round {round} of {}: {}", self.rounds, peer.name());
                let loads = &mut record.loads;
                let configuration = self.measure(peer.as_ref(), &scenarios, |scenario, outcome| {
                    let row = &mut loads[scenario].rows[index];
                    match outcome {
                        Ok(reading) => row.readings.push(reading),
                        Err(error) => row.failures.push(error.to_string()),
                    }
                });
                if !configuration.is_empty() {
                    record.servers[index].configuration = configuration;
                }
            }
            done += 1;
            save(&record)?;
        }
        Ok(record)
    }

    /// All scenarios on one fresh server. Returns how it was configured.
    fn measure(
        &self,
        peer: &dyn Peer,
        scenarios: &[Scenario],
        mut outcome: impl FnMut(usize, io::Result<Reading>),
    ) -> Vec<(String, String)> {
        let started = tempfile::tempdir().and_then(|folder| {
            let place = Place {
                programs: &self.programs,
                processor: Some(self.server_processor),
                folder: folder.path(),
                written: RefCell::default(),
            };
            let running = peer.start(&place)?;
            let configuration = configuration(&running, &place);
            Ok((running, folder, configuration))
        });
        let (running, _folder, configuration) = match started {
            Ok(started) => started,
            Err(error) => {
                let failed = |_| Err(io::Error::other(error.to_string()));
                (0..scenarios.len()).for_each(|index| outcome(index, failed(())));
                return Vec::new();
            }
        };
        for (index, scenario) in scenarios.iter().enumerate() {
            let run = u32::try_from(index).unwrap_or_default();
            let result = scenario.run(&running, run);
            let said = result
                .as_ref()
                .map_or_else(ToString::to_string, Reading::summary);
            eprintln!("  {}: {said}", scenario.name);
            outcome(index, result);
        }
        configuration
    }

    fn is_chosen(&self, peer: &dyn Peer) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == peer.name())
    }

    /// Ours need no program.
    fn is_installed(&self, peer: &dyn Peer) -> bool {
        const OURS: [&str; 3] = ["floor", "hark", "axum"];
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
            server(peer.as_ref(), version.or_else(|| Some(ours.clone())))
        });
        let missing = missing.iter().map(|peer| server(peer.as_ref(), None));
        let loads = scenarios.iter().map(|scenario| LoadRecord {
            rows: installed.iter().map(|peer| Row::of(peer.name())).collect(),
            ..LoadRecord::of(scenario)
        });
        Ok(Record {
            date: format_timestamp(u64::try_from(now).unwrap_or(0)),
            commit: commit.clone(),
            machine: Machine::read(processors)?,
            pinned: [self.server_processor, self.load_processor],
            commands: vec![command],
            servers: servers.chain(missing).collect(),
            loads: loads.collect(),
        })
    }
}

/// Each server's command line, and the files that were written for it.
fn configuration(running: &Running, place: &Place<'_>) -> Vec<(String, String)> {
    let folder = place.folder.display().to_string();
    let lines: Vec<&str> = running
        .servers
        .iter()
        .map(|server| server.command_line.as_str())
        .collect();
    let files = place.written.borrow();
    std::iter::once(("started with".to_owned(), lines.join("\n")))
        .chain(files.iter().cloned())
        .map(|(title, text)| (title, text.replace(&folder, "/tmp/FOLDER")))
        .collect()
}

/// What is checked out where this runs, and whether it was changed since.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(said)
    };
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else {
        return "unknown".to_owned();
    };
    match git(&["status", "--porcelain", "--untracked-files=no"]) {
        Some(changes) if changes.is_empty() => commit,
        _ => format!("{commit}, changed"),
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
