use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Child;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long a program may take to say `ready`.
pub(crate) const START: Duration = Duration::from_secs(30);

/// Lines kept of each output; the newest matter when something failed.
const KEPT_LINES: usize = 2_000;

/// A running program. Dropping it kills it; when the test is failing, what it
/// printed is shown with the failure.
pub struct Process {
    name: String,
    child: Child,
    pid: Pid,
    stdout: Lines,
    stderr: Lines,
    changes: watch::Receiver<()>,
    readers: JoinSet<()>,
    note: Option<String>,
}

type Lines = Arc<Mutex<Vec<String>>>;

impl Process {
    /// Takes charge of a child whose outputs are piped.
    pub(crate) fn of_child(mut child: Child, name: String, note: Option<String>) -> Self {
        let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let (changed, changes) = watch::channel(());
        let mut readers = JoinSet::new();
        let (stdout, stderr) = (Lines::default(), Lines::default());
        let outputs = (
            child.stdout.take().expect("piped"),
            child.stderr.take().expect("piped"),
        );
        readers.spawn(keep_lines(outputs.0, Arc::clone(&stdout), changed.clone()));
        readers.spawn(keep_lines(outputs.1, Arc::clone(&stderr), changed));
        let pid = pid.expect("a child that was not waited for has a pid");
        Self {
            name,
            child,
            pid,
            stdout,
            stderr,
            changes,
            readers,
            note,
        }
    }

    /// The addresses that it has printed, by their names (`chat` → `http://…`).
    #[must_use]
    pub fn addresses(&self) -> BTreeMap<String, String> {
        let lines = lock(&self.stdout);
        let pairs = lines.iter().filter_map(|line| line.split_once(' '));
        pairs
            .filter(|(_, url)| url.contains("://") && !url.contains(char::is_whitespace))
            .map(|(name, url)| (name.to_owned(), url.trim_end_matches('/').to_owned()))
            .collect()
    }

    /// The address printed as `name url`, without a slash at its end.
    ///
    /// # Panics
    /// When there is none of that name.
    #[must_use]
    pub fn url(&self, name: &str) -> String {
        let addresses = self.addresses();
        let url = addresses.get(name);
        url.unwrap_or_else(|| panic!("{} printed no `{name}` address: {addresses:?}", self.name))
            .clone()
    }

    /// Host and port of the address printed as `name url`.
    ///
    /// # Panics
    /// When there is none of that name, or its host is not an IP address.
    #[must_use]
    pub fn socket(&self, name: &str) -> SocketAddr {
        let url = self.url(name);
        let authority = url
            .split("://")
            .nth(1)
            .unwrap_or_default()
            .split('/')
            .next()
            .unwrap_or_default();
        authority
            .parse()
            .unwrap_or_else(|error| panic!("{url} has no socket address: {error}"))
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// What it has printed on standard output; the newest lines, if it was a lot.
    #[must_use]
    pub fn stdout(&self) -> String {
        lock(&self.stdout).join("\n")
    }

    /// What it has printed on standard error; the newest lines, if it was a lot.
    #[must_use]
    pub fn stderr(&self) -> String {
        lock(&self.stderr).join("\n")
    }

    /// Waits until standard output has such a line; `false` when it ends without.
    pub async fn wait_for_line(&mut self, matches: impl Fn(&str) -> bool) -> bool {
        loop {
            if lock(&self.stdout).iter().any(|line| matches(line)) {
                return true;
            }
            if self.changes.changed().await.is_err() {
                return lock(&self.stdout).iter().any(|line| matches(line));
            }
        }
    }

    /// Asks it to stop, with SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends a signal. One to a process that has ended is ignored.
    pub fn signal(&self, signal: Signal) {
        // `id` is `None` once the child has been waited for, when its pid may be another's.
        if self.child.id().is_some()
            && let Err(error) = kill_process(self.pid, signal)
        {
            panic!("cannot signal {}: {error}", self.name);
        }
    }

    /// Kills it as `kill -9` does, and waits until it is gone.
    ///
    /// # Panics
    /// When it is not gone within 30 seconds.
    pub async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.wait(START).await;
    }

    /// Waits for its end and for all of its output.
    ///
    /// # Panics
    /// When it has not ended within `within`; with its output.
    pub async fn wait(&mut self, within: Duration) -> ExitStatus {
        let Ok(status) = timeout(within, self.child.wait()).await else {
            panic!(
                "{} has not ended within {within:?}:\n{}",
                self.name,
                self.stderr()
            )
        };
        // A grandchild may hold the pipes; what it prints is not waited for.
        let read = async { while self.readers.join_next().await.is_some() {} };
        if timeout(Duration::from_secs(5), read).await.is_err() {
            self.readers.abort_all();
        }
        status.expect("a child can be waited for")
    }

    /// Its end, when it has ended.
    ///
    /// # Panics
    /// When the system cannot tell.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Resident memory in bytes.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        self.status_kib("VmRSS:") * 1024
    }

    fn status_kib(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .unwrap_or_else(|error| panic!("{} has no status: {error}", self.name));
        let value = status.lines().find_map(|line| line.strip_prefix(field));
        let number = value
            .and_then(|value| value.split_whitespace().next())
            .and_then(|number| number.parse().ok());
        number.unwrap_or_else(|| panic!("no {field} in {status}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (name, pid) = (&self.name, self.pid());
            let outputs = [("output", self.stdout()), ("error", self.stderr())];
            for (which, text) in outputs {
                eprintln!("--- standard {which} of {name} ({pid}):\n{text}");
            }
            if let Some(note) = &self.note {
                eprintln!("--- mind: {note}");
            }
        }
    }
}

async fn keep_lines(output: impl AsyncRead + Unpin, kept: Lines, changed: watch::Sender<()>) {
    let mut reader = BufReader::new(output);
    let mut line = Vec::new();
    // An error reading a pipe is its end.
    while reader
        .read_until(b'\n', &mut line)
        .await
        .is_ok_and(|length| length > 0)
    {
        let text = String::from_utf8_lossy(&line)
            .trim_end_matches('\n')
            .to_owned();
        line.clear();
        let mut lines = lock(&kept);
        if lines.len() == KEPT_LINES {
            lines.remove(0);
        }
        lines.push(text);
        drop(lines);
        changed.send_replace(());
    }
}

fn lock(lines: &Mutex<Vec<String>>) -> MutexGuard<'_, Vec<String>> {
    lines.lock()
}
