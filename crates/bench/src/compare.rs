//! The side-by-side run: every peer in turn, round after round.

use std::io;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::peers::{self, Peer, Place, Programs};
use crate::report::{self, Row, aligned};
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
    /// Runs everything, tells on standard error how far it is, and returns the
    /// report in Markdown.
    pub(crate) fn run(&self) -> io::Result<String> {
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
        let mut results: Vec<Vec<Row>> = scenarios
            .iter()
            .map(|_| installed.iter().map(|peer| empty(peer.as_ref())).collect())
            .collect();
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
                self.measure(peer.as_ref(), &scenarios, |scenario, outcome| {
                    let row = &mut results[scenario][index];
                    match outcome {
                        Ok(reading) => row.readings.push(reading),
                        Err(error) => row.failures.push(error.to_string()),
                    }
                });
            }
            done += 1;
        }
        let mut text = self.head(processors, done, &installed, &missing);
        for (scenario, rows) in scenarios.iter().zip(&results) {
            text.push('\n');
            text.push_str(&report::table(scenario, rows));
        }
        Ok(text)
    }

    /// All scenarios on one fresh server.
    fn measure(
        &self,
        peer: &dyn Peer,
        scenarios: &[Scenario],
        mut outcome: impl FnMut(usize, io::Result<Reading>),
    ) {
        let started = tempfile::tempdir().and_then(|folder| {
            let place = Place {
                programs: &self.programs,
                processor: Some(self.server_processor),
                folder: folder.path(),
            };
            Ok((peer.start(&place)?, folder))
        });
        let (running, _folder) = match started {
            Ok(started) => started,
            Err(error) => {
                let failed = |_| Err(io::Error::other(error.to_string()));
                (0..scenarios.len()).for_each(|index| outcome(index, failed(())));
                return;
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

    fn head(
        &self,
        processors: usize,
        rounds: usize,
        installed: &[Box<dyn Peer>],
        missing: &[Box<dyn Peer>],
    ) -> String {
        let mut lines = vec![["server", "version", "setup"].map(str::to_owned).to_vec()];
        for peer in installed {
            let ours = || format!("{} of this project", env!("CARGO_PKG_VERSION"));
            let version = self.programs.version(peer.as_ref()).unwrap_or_else(ours);
            lines.push(vec![
                peer.name().to_owned(),
                version,
                peer.setup().to_owned(),
            ]);
        }
        for peer in missing {
            let name = peer.name().to_owned();
            lines.push(vec![name, "not installed".to_owned(), String::new()]);
        }
        let mut text = format!(
            "{} with {processors} processors, {}, file limit {}. Servers on processor {}, load on processor {}.\n\
             {rounds} rounds, the servers in turn in each; medians (minimum–maximum). Payloads of 100 bytes.\n\n",
            model(),
            kernel(),
            file_limit(),
            self.server_processor,
            self.load_processor,
        );
        aligned(&lines, &mut text);
        text
    }
}

fn empty(peer: &dyn Peer) -> Row {
    Row {
        peer: peer.name(),
        readings: Vec::new(),
        failures: Vec::new(),
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

fn file_limit() -> String {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string())
}

fn model() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    let model = line.and_then(|line| line.split_once(": "));
    model
        .map_or("unknown processor", |(_, model)| model)
        .to_owned()
}

fn kernel() -> String {
    let read = |name| std::fs::read_to_string(Path::new("/proc/sys/kernel").join(name));
    let release = read("osrelease").unwrap_or_default();
    format!("Linux {}", release.trim())
}
