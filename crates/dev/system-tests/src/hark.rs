use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use test_kit::{Process, Program};

use crate::Sender;
use crate::chain::stream_url;

/// The options of `hark up` that take an address, and the names under which it prints them.
const LISTENERS: [(&str, &str); 5] = [
    ("--chat", "chat"),
    ("--sse", "sse"),
    ("--demo", "demo"),
    ("--mqtt", "mqtt"),
    ("--ops", "ops"),
];

/// The one command, running everything; it comes back on the same ports.
pub struct Hark {
    data: PathBuf,
    process: Option<Process>,
    addresses: Vec<String>,
}

/// The `hark` command with these arguments, not yet run.
#[must_use]
pub fn hark(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Program {
    Program::of_workspace("hark").args(arguments)
}

impl Hark {
    /// `hark up` with its data in this folder and every port free.
    ///
    /// # Panics
    /// When it does not become ready; with its output.
    pub async fn up(data: &Path) -> Self {
        Self::up_with(data, |program| program).await
    }

    /// The same, run in another way this one time.
    ///
    /// # Panics
    /// When it does not become ready; with its output.
    pub async fn up_with(data: &Path, adapt: impl FnOnce(Program) -> Program) -> Self {
        let free = vec!["127.0.0.1:0".to_owned(); LISTENERS.len()];
        let mut hark = Self {
            data: data.to_owned(),
            process: None,
            addresses: free,
        };
        hark.run(adapt(hark.program())).await;
        hark
    }

    /// Starts it again after [`stop`](Self::stop), where it was.
    ///
    /// # Panics
    /// When it does not become ready; with its output.
    pub async fn start(&mut self) {
        self.run(self.program()).await;
    }

    async fn run(&mut self, program: Program) {
        let process = program.start().await;
        self.addresses = LISTENERS
            .iter()
            .map(|(_, name)| process.socket(name).to_string())
            .collect();
        self.process = Some(process);
    }

    /// The command that [`start`](Self::start) runs.
    #[must_use]
    pub fn program(&self) -> Program {
        let options = LISTENERS.iter().zip(&self.addresses);
        let options = options.flat_map(|((option, _), address)| [option, address.as_str()]);
        hark(["up", "--data"]).arg(&self.data).args(options)
    }

    /// The running process.
    ///
    /// # Panics
    /// When it was stopped.
    #[must_use]
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("a started hark")
    }

    /// Stops it by SIGTERM, and returns how it ended and what it said on standard error.
    ///
    /// # Panics
    /// When it does not run, or does not end within 30 seconds.
    pub async fn stop(&mut self) -> (ExitStatus, String) {
        let mut process = self.process.take().expect("a started hark");
        process.terminate();
        (
            process.wait(Duration::from_secs(30)).await,
            process.stderr(),
        )
    }

    /// Where one of its listeners can be reached, by the name that it prints.
    ///
    /// # Panics
    /// When it does not run, or has no such listener.
    #[must_use]
    pub fn url(&self, name: &str) -> String {
        self.process().url(name)
    }

    /// Someone who posts to its chat-service.
    #[must_use]
    pub fn sender(&self) -> Sender {
        Sender::to(self.url("chat"))
    }

    /// The URL of a stream of these channels.
    #[must_use]
    pub fn stream(&self, channels: &[&str]) -> String {
        stream_url(&self.url("sse"), channels)
    }
}
