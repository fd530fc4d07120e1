//! A run as it is saved: everything that the report is made of.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::scenario::{Counts, Reading, Scenario};
use crate::spread::Spread;

/// The readings of one or more runs, and what they were taken on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// UTC, as in RFC 3339.
    pub(crate) date: String,
    /// What Hark was built from.
    pub(crate) commit: String,
    pub(crate) machine: Machine,
    /// The processor that servers ran on, and that of the load generator.
    pub(crate) pinned: [usize; 2],
    /// A write of 4 KiB with fsync where servers store, in each round. Milliseconds.
    #[serde(default)]
    pub(crate) fsync: Vec<f64>,
    /// Each run's command.
    pub(crate) commands: Vec<String>,
    pub(crate) servers: Vec<ServerRecord>,
    pub(crate) loads: Vec<LoadRecord>,
}

/// A server, as it was set up.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ServerRecord {
    pub(crate) name: String,
    /// `None`: not installed.
    pub(crate) version: Option<String>,
    pub(crate) setup: String,
    /// Its command lines and configuration files: a title and the text.
    pub(crate) configuration: Vec<(String, String)>,
}

/// All readings of one load.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct LoadRecord {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) counts: Counts,
    pub(crate) rows: Vec<Row>,
}

/// What one peer showed in all rounds of a load.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) peer: String,
    pub(crate) readings: Vec<Reading>,
    /// Why runs of it failed.
    pub(crate) failures: Vec<String>,
}

impl Record {
    pub(crate) fn read(file: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(file).map_err(|error| of_file(file, &error))?;
        serde_json::from_str(&text).map_err(|error| of_file(file, &error))
    }

    /// Replaces the file in one step: a run that is killed leaves its last round.
    pub(crate) fn write(&self, file: &Path) -> io::Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        let beside = file.with_extension("json.new");
        fs::write(&beside, text)
            .and_then(|()| fs::rename(&beside, file))
            .map_err(|error| of_file(file, &error))
    }

    /// Adds the loads of another run; one that both have is taken from the other, whole, as only
    /// what was measured in turn can be compared.
    ///
    /// # Errors
    /// When the two differ in the machine or in what was measured.
    pub(crate) fn extend(&mut self, other: Self) -> io::Result<()> {
        let differ = |what: &str| Err(io::Error::other(format!("runs of different {what}")));
        if self.machine != other.machine || self.pinned != other.pinned {
            return differ("machines");
        }
        if self.commit != other.commit {
            return differ("commits");
        }
        for server in other.servers {
            match self
                .servers
                .iter_mut()
                .find(|known| known.name == server.name)
            {
                Some(known) if known.version == server.version => *known = server,
                Some(known) => return differ(&format!("versions of {}", known.name)),
                None => self.servers.push(server),
            }
        }
        for load in other.loads {
            match self.loads.iter_mut().find(|known| known.id == load.id) {
                Some(known) => *known = load,
                None => self.loads.push(load),
            }
        }
        self.date = self.date.clone().max(other.date);
        self.fsync.extend(other.fsync);
        self.commands.extend(other.commands);
        Ok(())
    }

    pub(crate) fn load(&self, id: &str) -> Option<&LoadRecord> {
        self.loads.iter().find(|load| load.id == id)
    }
}

impl LoadRecord {
    pub(crate) fn of(scenario: &Scenario) -> Self {
        Self {
            id: scenario.id.to_owned(),
            name: scenario.name.clone(),
            counts: scenario.counts(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn row(&self, peer: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.peer == peer)
    }
}

impl Row {
    pub(crate) fn of(peer: &str) -> Self {
        Self {
            peer: peer.to_owned(),
            ..Self::default()
        }
    }

    /// Those that succeeded and those that failed.
    pub(crate) fn runs(&self) -> usize {
        self.readings.len() + self.failures.len()
    }

    /// The readings in which the load generator was not the bottleneck.
    pub(crate) fn counted(&self) -> impl Iterator<Item = &Reading> {
        let readings = self.readings.iter();
        readings.filter(|reading| !reading.is_of_the_load())
    }

    pub(crate) fn spread(&self, figure: impl Fn(&Reading) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.counted().filter_map(figure))
    }
}

fn of_file(file: &Path, error: &dyn std::error::Error) -> io::Error {
    io::Error::other(format!("{}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(load: &str, peer: &str) -> Record {
        Record {
            commit: "abc".to_owned(),
            loads: vec![LoadRecord {
                id: load.to_owned(),
                rows: vec![Row {
                    readings: vec![Reading {
                        cost: Some(1.5),
                        latency: Some([1.0, 2.0, 3.0]),
                        ..Reading::default()
                    }],
                    ..Row::of(peer)
                }],
                ..LoadRecord::default()
            }],
            ..Record::default()
        }
    }

    #[test]
    fn what_is_saved_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("new/run.json");
        let record = record("idle", "hark");
        record.write(&file).unwrap();
        assert_eq!(Record::read(&file).unwrap(), record);
        assert!(Record::read(folder.path()).is_err());
    }

    #[test]
    fn runs_of_different_loads_become_one() {
        let mut all = record("idle", "hark");
        all.extend(record("churn", "hark")).unwrap();
        all.extend(record("idle", "floor")).unwrap();
        let ids: Vec<&str> = all.loads.iter().map(|load| load.id.as_str()).collect();
        assert_eq!(ids, ["idle", "churn"]);
        assert!(all.load("idle").unwrap().row("floor").is_some());
        assert!(all.load("idle").unwrap().row("hark").is_none());
    }

    #[test]
    fn runs_that_cannot_be_compared_stay_apart() {
        let mut all = record("idle", "hark");
        let mut other = record("churn", "hark");
        other.commit = "def".to_owned();
        assert!(all.extend(other).is_err());
        let mut other = record("churn", "hark");
        other.machine.memory = 1;
        assert!(all.extend(other).is_err());
    }
}
