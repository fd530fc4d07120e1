use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::guarded_folder::GuardedFolder;
use crate::{Process, Program, ensure, eventually, mqtt};

/// How long nodes may take to find each other on a busy machine.
pub(crate) const START: Duration = Duration::from_secs(120);

/// A real broker of one node, or of several that replicate, on ports of their
/// own. It ends when it is dropped, and with the test process, so that it may be
/// kept in a static.
pub struct BrokerCluster {
    pub(crate) nodes: Vec<Node>,
    /// Runs beside the nodes for as long as they do.
    pub(crate) _companion: Option<Process>,
    /// `sh`, in whose environment the broker's own commands mean the first node.
    pub(crate) shell: Program,
    pub(crate) folder: GuardedFolder,
}

/// One of them.
pub(crate) struct Node {
    mqtt: SocketAddr,
    program: Program,
    process: Option<Process>,
}

impl Node {
    /// One that `program` runs and that listens there for MQTT.
    pub(crate) fn new(mqtt: SocketAddr, program: Program) -> Self {
        Self {
            mqtt,
            program,
            process: None,
        }
    }
}

impl BrokerCluster {
    /// Starts all nodes at once, and waits until they take MQTT sessions.
    pub(crate) async fn started(mut self) -> Self {
        for node in 0..self.nodes.len() {
            self.spawn(node);
        }
        for node in 0..self.nodes.len() {
            self.takes_sessions(node).await;
        }
        self
    }

    /// Starts each node when the one before takes MQTT sessions.
    pub(crate) async fn started_in_turn(mut self) -> Self {
        for node in 0..self.nodes.len() {
            self.start(node).await;
        }
        self
    }

    /// Where each node listens for MQTT; the same after [`restart`](Self::restart).
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.mqtt).collect()
    }

    /// All nodes' addresses as `mqtt://…`, between commas.
    #[must_use]
    pub fn urls(&self) -> String {
        let urls: Vec<_> = self
            .nodes
            .iter()
            .map(|node| format!("mqtt://{}", node.mqtt))
            .collect();
        urls.join(",")
    }

    /// The process id of each node.
    ///
    /// # Panics
    /// When one was killed.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        let processes = self.nodes.iter().map(|node| node.process.as_ref());
        processes
            .map(|process| process.expect("a running node").pid())
            .collect()
    }

    /// Kills a node, as a crash would.
    pub async fn kill(&mut self, node: usize) {
        if let Some(mut process) = self.nodes[node].process.take() {
            process.kill().await;
        }
    }

    /// Kills a node if it runs, starts it on the same port, and waits until it
    /// has joined the others and takes MQTT sessions.
    ///
    /// # Panics
    /// When it does not.
    pub async fn restart(&mut self, node: usize) {
        self.kill(node).await;
        self.start(node).await;
    }

    async fn start(&mut self, node: usize) {
        self.spawn(node);
        self.takes_sessions(node).await;
    }

    /// Runs a shell script, in which the broker's own commands mean the first node.
    ///
    /// # Panics
    /// When it fails.
    pub async fn run_script(&self, script: &Path, environment: &[(&str, &str)]) {
        let mut program = self.shell.clone().arg("-e").arg(script);
        for (key, value) in environment {
            program = program.env(key, value);
        }
        let finished = program.in_folder(self.folder.path()).run(START).await;
        assert!(finished.status.success(), "{finished:?}");
    }

    fn spawn(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        node.process = Some(self.folder.spawn(node.program.clone()));
    }

    /// A node listens long before it takes sessions, for which a cluster needs a
    /// leader.
    pub(crate) async fn takes_sessions(&mut self, node: usize) {
        let Node { mqtt, process, .. } = &mut self.nodes[node];
        let process = process.as_mut().expect("a started node");
        eventually!(START, {
            let ended = process.ended();
            ensure!(
                ended.is_none(),
                "{ended:?}: {}\n{}",
                process.stdout(),
                process.stderr()
            );
            let (_, (kind, body)) = mqtt::connect(*mqtt).await?;
            ensure!(kind == 0x20, "no CONNACK: {kind:#x}");
            // MQTT 3.1.1, section 3.2.2.3. Users without a name may be refused, with another code.
            ensure!(body.get(1) != Some(&3), "server unavailable");
            Ok(())
        });
    }
}
