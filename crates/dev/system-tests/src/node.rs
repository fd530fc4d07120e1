use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use test_kit::{Postgres, Process, Program};

/// One service as a process of its own, which comes back on the same ports
/// after it was killed.
pub struct Node {
    program: Program,
    process: Option<Process>,
    listeners: Vec<Listening>,
}

/// An address that the service listens on.
struct Listening {
    variable: &'static str,
    name: &'static str,
    /// Any free port at first, then always the same.
    address: SocketAddr,
}

impl Node {
    /// The embedded broker's binary.
    #[must_use]
    pub fn broker() -> Self {
        Self::new("broker", "mqtt")
    }

    /// A chat-service with this broker (`mqtt://…`) and a store in this folder.
    #[must_use]
    pub fn chat_service(broker: &str, store: &Path) -> Self {
        Self::new("chat-service", "chat")
            .env("HARK_MQTT__URL", broker)
            .env("HARK_STORE__DIR", store)
    }

    /// A chat-service with this broker (`mqtt://…`) and a database (`postgres://…`) of a
    /// [`Postgres`].
    #[must_use]
    pub fn chat_service_on_postgres(broker: &str, database: &str) -> Self {
        Self::new("chat-service", "chat")
            .env("HARK_MQTT__URL", broker)
            .env("HARK_STORE__ENGINE", "postgres")
            .env("HARK_STORE__POSTGRES__URL", database)
            .env("HARK_STORE__POSTGRES__PASSWORD", Postgres::PASSWORD)
    }

    /// A broadcast-sse with this broker (`mqtt://…`) and this chat-service (`http://…`).
    #[must_use]
    pub fn broadcast_sse(broker: &str, history: &str) -> Self {
        Self::new("broadcast-sse", "sse")
            .env("HARK_MQTT__URL", broker)
            .env("HARK_HISTORY__URL", history)
    }

    fn new(binary: &str, name: &'static str) -> Self {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let listeners = vec![
            Listening {
                variable: "HARK_LISTEN",
                name,
                address: free,
            },
            Listening {
                variable: "HARK_OPERATIONS__LISTEN",
                name: "ops",
                address: free,
            },
        ];
        Self {
            program: Program::of_workspace(binary),
            process: None,
            listeners,
        }
    }

    /// Sets a variable of its environment; used from the next start on.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.program = self.program.env(key, value);
        self
    }

    /// Changes how it is started: with further arguments, or by another program
    /// ([`Program::started_by`]).
    #[must_use]
    pub fn started_by(mut self, change: impl FnOnce(Program) -> Program) -> Self {
        self.program = change(self.program);
        self
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// When it does not get there; with its output.
    #[must_use]
    pub async fn started(mut self) -> Self {
        self.start().await;
        self
    }

    /// Starts it, on the ports of its first start, and waits until it is ready.
    ///
    /// # Panics
    /// When it does not get there; with its output.
    pub async fn start(&mut self) {
        let mut program = self.program.clone();
        for listening in &self.listeners {
            program = program.env(listening.variable, listening.address.to_string());
        }
        let process = program.start().await;
        for listening in &mut self.listeners {
            listening.address = process.socket(listening.name);
        }
        self.process = Some(process);
    }

    /// The running process.
    ///
    /// # Panics
    /// When it was never started or has been killed.
    #[must_use]
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("a started node")
    }

    /// Whether it was started and has ended by itself, or was killed by somebody else.
    pub fn has_ended(&mut self) -> bool {
        let process = self.process.as_mut();
        process.is_some_and(|process| process.ended().is_some())
    }

    /// Kills it as `kill -9` does.
    pub async fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().await;
        }
    }

    /// Stops it by SIGTERM and waits for its end, at most this long.
    ///
    /// # Panics
    /// When it does not run, or does not end in time.
    pub async fn stop(&mut self, within: Duration) -> ExitStatus {
        let mut process = self.process.take().expect("a started node");
        process.terminate();
        process.wait(within).await
    }

    /// Kills it and starts it again.
    pub async fn restart(&mut self) {
        self.kill().await;
        self.start().await;
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listeners[0].address
    }

    /// `http://` and where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// `mqtt://` and where it listens.
    #[must_use]
    pub fn mqtt_url(&self) -> String {
        format!("mqtt://{}", self.address())
    }

    /// Where its operations listener is.
    #[must_use]
    pub fn operations(&self) -> SocketAddr {
        self.listeners[1].address
    }

    /// The URL of its operations listener.
    #[must_use]
    pub fn operations_url(&self) -> String {
        format!("http://{}", self.operations())
    }

    /// What one of its metrics without labels says now.
    ///
    /// # Panics
    /// When it has none of this name, or cannot be asked.
    pub async fn metric(&self, name: &str) -> u64 {
        let url = format!("{}/metrics", self.operations_url());
        let answer = reqwest::get(url).await.expect("metrics are served");
        let metrics = answer.text().await.expect("metrics are text");
        let line = metrics.lines().find_map(|line| {
            let (found, value) = line.split_once(' ')?;
            (found == name).then_some(value)
        });
        let value = line.unwrap_or_else(|| panic!("no {name} in {metrics}"));
        value.parse().expect("a whole number")
    }
}
