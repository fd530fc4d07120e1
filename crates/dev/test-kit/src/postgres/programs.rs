use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::timeout;

use super::PATIENCE;

/// Where Debian keeps the programs of each version.
const VERSIONS: &str = "/usr/lib/postgresql";

/// One of PostgreSQL's programs, run by a user who may: as root it refuses to.
pub(super) fn program(name: &str) -> tokio::process::Command {
    tokio::process::Command::from(command(name))
}

/// One that outlives the runtime of the test that started it, and signals of
/// the terminal.
pub(super) fn lasting(name: &str) -> Command {
    let mut command = command(name);
    command.process_group(0);
    command
}

fn command(name: &str) -> Command {
    let path = installed().join(name);
    assert!(
        path.exists(),
        "this test needs `{}`: apt-get install postgresql",
        path.display()
    );
    let mut command = if is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "postgres", "--regid", "postgres"]);
        command.arg("--clear-groups").arg(path);
        command
    } else {
        Command::new(path)
    };
    // Folders that this user may not read make some of them fail.
    command.current_dir("/").env("HOME", "/");
    command
}

/// The folder of the newest version's programs.
fn installed() -> PathBuf {
    let versions = fs::read_dir(VERSIONS).into_iter().flatten().flatten();
    let newest = versions
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .max();
    let Some(newest) = newest else {
        panic!("this test needs PostgreSQL: apt-get install postgresql")
    };
    Path::new(VERSIONS).join(newest.to_string()).join("bin")
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Makes a file belong to the user who runs the server.
pub(super) fn give_to_server(path: &Path) {
    if is_root() {
        let changed = Command::new("chown").arg("postgres:").arg(path).status();
        assert!(
            changed.is_ok_and(|status| status.success()),
            "this test needs the user postgres: apt-get install postgresql"
        );
    }
}

/// Runs a program to its end and returns what it printed.
pub(super) async fn run(command: tokio::process::Command) -> String {
    try_run(command).await.unwrap_or_else(|why| panic!("{why}"))
}

/// The same, or what it says when it fails.
pub(super) async fn try_run(mut command: tokio::process::Command) -> Result<String, String> {
    let ran = timeout(PATIENCE, command.stdin(Stdio::null()).output()).await;
    let output = ran
        .unwrap_or_else(|_| panic!("{command:?} takes longer than {PATIENCE:?}"))
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{command:?}: {errors}"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

pub(super) fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.cast_signed()).expect("a pid is positive");
    // It may have ended by itself; whoever waits for it sees that.
    let _gone = kill_process(pid, signal);
}

/// The processes that this one has started.
pub(super) fn children(parent: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| stat(*pid).is_some_and(|(_, of)| of == parent))
        .collect()
}

/// Whether there is such a process that has not ended.
pub(super) fn is_running(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != "Z")
}

/// State and parent of a process (proc(5)): they follow its name, which is in
/// parentheses and may hold anything.
fn stat(pid: u32) -> Option<(String, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}
