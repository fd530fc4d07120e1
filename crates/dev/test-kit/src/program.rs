use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, SystemTime};

use tokio::process::Command;
use tokio::time::timeout;

use crate::Process;
use crate::process::START;

/// A program to be started: its binary, arguments and environment.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    folder: Option<PathBuf>,
    note: Option<String>,
}

impl Program {
    /// One of the workspace's own binaries, from the target folder of the test, the example or the
    /// program that runs.
    ///
    /// # Panics
    /// When it has not been built.
    #[must_use]
    pub fn of_workspace(name: &str) -> Self {
        let test = std::env::current_exe().expect("the path of the running test");
        // target/<profile>/<program>, or target/<profile>/deps/<test>
        let beside = test.with_file_name(name);
        let path = if beside.exists() {
            beside
        } else {
            let profile = test.ancestors().nth(2);
            profile
                .expect("a test lies in target/<profile>/deps")
                .join(name)
        };
        assert!(
            path.exists(),
            "{} has not been built: run `cargo build --workspace --bins --tests`, or all tests by `cargo xtask test`",
            path.display()
        );
        let note = newer_source(&path).map(|source| {
            format!(
                "{} is older than {}: run `cargo build --workspace --bins --tests`",
                path.display(),
                source.display()
            )
        });
        Self {
            note,
            ..Self::at(path)
        }
    }

    /// A program of the system, found in `PATH` or in the folders of system services.
    ///
    /// # Panics
    /// When it is not there, naming the Debian package that has it.
    #[must_use]
    pub fn of_system(name: &str, debian_package: &str) -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
        let found = folders
            .map(|folder| folder.join(name))
            .find(|path| path.exists());
        let Some(found) = found else {
            panic!("this test needs `{name}`: apt-get install {debian_package}")
        };
        Self::at(found)
    }

    /// A program that a step of `cargo xtask test` has put at this path.
    ///
    /// # Panics
    /// When it is not there, naming the step.
    #[must_use]
    pub fn of_step(path: impl Into<PathBuf>, step: &str) -> Self {
        let path = path.into();
        assert!(
            path.exists(),
            "{} is not installed: run `cargo xtask test --only tools --only {step}`",
            path.display()
        );
        Self::at(path)
    }

    fn at(path: PathBuf) -> Self {
        Self {
            path,
            args: Vec::new(),
            envs: Vec::new(),
            folder: None,
            note: None,
        }
    }

    /// The path of the binary.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets another program start it, which finds its path and arguments behind
    /// its own and must become it (`exec`).
    #[must_use]
    pub fn started_by(self, wrapper: Self) -> Self {
        let mut wrapped = wrapper.arg(&self.path).args(self.args);
        wrapped.envs.extend(self.envs);
        Self {
            folder: self.folder.or(wrapped.folder),
            note: self.note,
            ..wrapped
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable of the environment, which is otherwise the test's own.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.envs
            .push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Runs in this folder.
    #[must_use]
    pub fn in_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Starts it without waiting for anything.
    ///
    /// # Panics
    /// When the system cannot start it.
    #[must_use]
    pub fn spawn(&self) -> Process {
        let mut command = Command::new(&self.path);
        command
            .args(&self.args)
            .envs(self.envs.iter().map(|(key, value)| (key, value)));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", self.path.display()));
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        Process::of_child(child, name.into_owned(), self.note.clone())
    }

    /// Starts it and waits until it has printed the line `ready`.
    ///
    /// # Panics
    /// When it ends before, or says nothing within 30 seconds; with its output.
    pub async fn start(&self) -> Process {
        let mut process = self.spawn();
        let ready = process.wait_for_line(|line| line == "ready");
        match timeout(START, ready).await {
            Ok(true) => process,
            Ok(false) => {
                let status = process.wait(START).await;
                panic!(
                    "{} ended with {status} before it was ready:\n{}",
                    self.path.display(),
                    process.stderr()
                )
            }
            Err(_) => panic!(
                "{} is not ready after {START:?}:\n{}",
                self.path.display(),
                process.stderr()
            ),
        }
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When it has not ended within `within`; with its output.
    pub async fn run(&self, within: Duration) -> Finished {
        let mut process = self.spawn();
        let status = process.wait(within).await;
        Finished {
            status,
            stdout: process.stdout(),
            stderr: process.stderr(),
        }
    }
}

/// How a program ended.
#[derive(Debug)]
pub struct Finished {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it printed on standard output.
    pub stdout: String,
    /// What it printed on standard error.
    pub stderr: String,
}

/// A source file that has changed since the binary was built, by the list that
/// cargo writes beside it (`<binary>.d`: the binary, a colon, its sources).
fn newer_source(binary: &Path) -> Option<PathBuf> {
    let changed = |path: &Path| -> Option<SystemTime> { path.metadata().ok()?.modified().ok() };
    let built = changed(binary)?;
    let list = std::fs::read_to_string(binary.with_extension("d")).ok()?;
    let (_, sources) = list.split_once(": ")?;
    let mut sources = sources.split_whitespace().map(PathBuf::from);
    sources.find(|source| changed(source).is_some_and(|changed| changed > built))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn shell(script: &str) -> Program {
        Program::of_system("sh", "dash").arg("-c").arg(script)
    }

    #[tokio::test]
    async fn addresses_are_read_until_ready_and_sigterm_ends_it() {
        let mut process = shell(
            "echo chat http://127.0.0.1:80/; echo try: curl http://x y; echo ready; exec sleep 60",
        )
        .start()
        .await;
        assert_eq!(process.url("chat"), "http://127.0.0.1:80");
        assert_eq!(
            process.socket("chat"),
            SocketAddr::from(([127, 0, 0, 1], 80))
        );
        assert_eq!(process.addresses().len(), 1);
        assert!(process.resident_bytes() > 0);
        process.terminate();
        assert!(!process.wait(START).await.success());
    }

    #[tokio::test]
    #[should_panic(expected = "before it was ready:\nport taken")]
    async fn one_that_ends_before_it_is_ready_shows_its_standard_error() {
        shell("echo port taken >&2; exit 1").start().await;
    }

    #[tokio::test]
    async fn a_run_has_all_output_and_the_exit_status() {
        let finished = shell("echo a; echo b >&2; exit 64").run(START).await;
        assert_eq!(
            (
                finished.status.code(),
                finished.stdout.as_str(),
                finished.stderr.as_str()
            ),
            (Some(64), "a", "b")
        );
    }

    #[test]
    #[should_panic(expected = "cargo xtask test --only tools --only clients")]
    fn a_missing_installation_names_its_step() {
        let _never = Program::of_step("/nowhere/at/all", "clients");
    }

    #[test]
    #[should_panic(expected = "apt-get install no-package")]
    fn a_missing_program_names_its_package() {
        let _never = Program::of_system("no-such-program", "no-package");
    }
}
