//! What the readings were taken on.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::process::Command;
use std::time::Instant;

use procfs::{CpuInfo, Current as _, Meminfo};
use rustix::process::{Resource, getrlimit};
use serde::{Deserialize, Serialize};

/// So many small writes are timed.
const WRITES: usize = 51;

/// The machine, as the reader of a table wants to know it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    /// Those that this process may run on.
    pub(crate) processors: usize,
    /// Bytes.
    pub(crate) memory: u64,
    pub(crate) kernel: String,
    /// Open files that a process may have.
    pub(crate) files: Option<u64>,
}

impl Machine {
    pub(crate) fn read(processors: usize) -> io::Result<Self> {
        let information = CpuInfo::current().map_err(io::Error::other)?;
        let memory = Meminfo::current().map_err(io::Error::other)?;
        let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let processor = information.model_name(0).unwrap_or("unknown processor");
        Ok(Self {
            processor: processor.to_owned(),
            processors,
            memory: memory.mem_total,
            kernel: format!("Linux {}", release.trim()),
            files: getrlimit(Resource::Nofile).current,
        })
    }
}

/// The median time of a write of 4 KiB with fsync where servers store. Milliseconds.
pub(crate) fn fsync() -> io::Result<f64> {
    let folder = tempfile::tempdir()?;
    let mut file = File::create(folder.path().join("fsync"))?;
    let mut times = Vec::with_capacity(WRITES);
    for _ in 0..WRITES {
        let begin = Instant::now();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        times.push(begin.elapsed());
    }
    times.sort();
    Ok(times[WRITES / 2].as_secs_f64() * 1e3)
}

/// What is checked out where this runs, and whether it was changed since.
pub(crate) fn commit() -> String {
    // Without git, or outside of a checkout, the commit is unknown.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_machine_can_be_told() {
        let machine = Machine::read(2).unwrap();
        assert!(machine.memory > 0);
        assert!(fsync().unwrap() > 0.0);
    }
}
