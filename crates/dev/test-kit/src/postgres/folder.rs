use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::programs::give_to_server;
use crate::guarded_folder::GuardedFolder;

/// Reads until the test process is gone, however it ended, or lets go of the
/// pipe; then ends the server, if it still runs, and removes the folder. A
/// parent-death signal would not do: it comes when the *thread* ends that
/// started the server.
const WATCHER: &str = r#"
cat >/dev/null
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
case $(cat "/proc/$pid/comm" 2>/dev/null) in postgres)
    kill -CONT "$pid"; kill -QUIT "$pid"
    tries=0
    while kill -0 "$pid" 2>/dev/null && [ $tries -lt 100 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
    kill -KILL "$pid" 2>/dev/null
esac
rm -rf "$1"
"#;

/// The folder of one cluster, with its data, its log and its socket. It is
/// removed after the test process has ended or let go of it.
pub(super) struct Folder(GuardedFolder);

impl Folder {
    pub(super) fn new() -> Self {
        let folder = GuardedFolder::watched_by(WATCHER, "hark-postgres-");
        give_to_server(folder.path());
        Self(folder)
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.path().join("log")
    }

    /// Appends to a file of the data folder.
    pub(super) fn append(&self, name: &str, text: &str) {
        let file = fs::File::options()
            .append(true)
            .open(self.data().join(name));
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
        written.unwrap_or_else(|error| panic!("cannot write {name}: {error}"));
    }

    /// Removes what a killed server has left on the machine: its lock file, whose
    /// pid may become another's, and the shared memory segment that is named
    /// there (seventh line, second number).
    pub(super) fn forget_server(&self) {
        let lock = self.data().join("postmaster.pid");
        let Ok(text) = fs::read_to_string(&lock) else {
            return;
        };
        let segment = text
            .lines()
            .nth(6)
            .and_then(|line| line.split_whitespace().nth(1));
        if let Some(segment) = segment {
            // It matters little: 56 bytes.
            let mut remove = Command::new("ipcrm");
            let _removed = remove.args(["-m", segment]).output();
        }
        // It is there, as it was read, and nobody else knows it.
        let _removed = fs::remove_file(lock);
    }
}
