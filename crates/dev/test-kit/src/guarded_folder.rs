use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::{Process, Program};

/// Reads until the test process is gone, however it ended, or lets go of the
/// pipe; then kills what was started in the folder and still runs there, and
/// removes it. A parent-death signal would not do: it comes when the *thread*
/// ends that started the program.
const WATCHER: &str = r#"
cat >/dev/null
while read -r pid; do
    [ "$(readlink "/proc/$pid/cwd")" = "$1" ] && kill -KILL "$pid"
done <"$1/pids"
rm -rf "$1"
"#;

/// A temporary folder with programs that run in it. They end with the test
/// process at the latest, even one that was stopped or lives in a static, and
/// then the folder is removed.
pub(crate) struct GuardedFolder {
    path: PathBuf,
    /// Its end of the pipe goes with this process.
    _watcher: Child,
}

impl GuardedFolder {
    pub(crate) fn new(prefix: &str) -> Self {
        Self::watched_by(WATCHER, prefix)
    }

    /// One whose end is the task of another shell script: it gets the folder as its argument, and a
    /// standard input that ends with the test process or when this value is dropped.
    pub(crate) fn watched_by(watcher: &str, prefix: &str) -> Self {
        let folder = tempfile::Builder::new()
            .prefix(prefix)
            .tempdir()
            .expect("a temporary folder");
        // From here on the watcher removes it.
        let path = folder.keep();
        std::fs::write(path.join("pids"), "").expect("write into the folder");
        let watcher = Command::new("sh")
            .args(["-c", watcher, "sh"])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Signals of the terminal are not for it.
            .process_group(0)
            .spawn()
            .expect("sh can be started");
        Self {
            path,
            _watcher: watcher,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file; gives its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path.join(name);
        std::fs::write(&path, text).expect("write into the folder");
        path
    }

    /// Starts a program in the folder, which must stay its working directory.
    pub(crate) fn spawn(&self, program: Program) -> Process {
        let process = program.in_folder(&self.path).spawn();
        let mut pids = OpenOptions::new()
            .append(true)
            .open(self.path.join("pids"))
            .expect("open the list of pids");
        writeln!(pids, "{}", process.pid()).expect("append to the list of pids");
        process
    }
}
