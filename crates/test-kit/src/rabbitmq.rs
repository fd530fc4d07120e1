use std::fmt::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use tokio::net::TcpStream;

use crate::free_address::free_address;
use crate::guarded_folder::GuardedFolder;
use crate::{Process, Program, ensure, eventually};

/// How long nodes may take to find each other on a busy machine.
const START: Duration = Duration::from_secs(120);

/// A real RabbitMQ (Debian package `rabbitmq-server`) with its MQTT plug-in:
/// one node, or a cluster of several, on ports of their own. It ends when it
/// is dropped, and with the test process, so that it may be kept in a static.
///
/// Users and permissions are RabbitMQ's defaults: whoever comes without a name
/// is `guest`, who may do everything.
pub struct RabbitMqCluster {
    nodes: Vec<Node>,
    epmd: SocketAddr,
    _epmd_process: Process,
    folder: GuardedFolder,
}

struct Node {
    mqtt: SocketAddr,
    distribution: SocketAddr,
    process: Option<Process>,
}

/// Where the scripts are that Debian's wrappers in /usr/sbin start: those change
/// the user and use the folders of the system's service.
const SCRIPTS: &str = "/usr/lib/rabbitmq/bin";

impl RabbitMqCluster {
    /// Starts this many nodes, three for a cluster that survives the loss of
    /// one, and waits until they have joined and accept connections.
    ///
    /// # Panics
    /// When RabbitMQ is not installed or does not start.
    pub async fn start(nodes: usize) -> Self {
        Self::start_with(nodes, "").await
    }

    /// Starts them with further lines of `rabbitmq.conf`.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn start_with(nodes: usize, settings: &str) -> Self {
        // The registry of names, one for a machine, would stay behind for ever.
        let program = Program::of_system("epmd", "rabbitmq-server");
        let folder = GuardedFolder::new("hark-rabbitmq-");
        let cookie = folder.write(".erlang.cookie", "HARKHARKHARK");
        let mode = std::fs::Permissions::from_mode(0o400);
        std::fs::set_permissions(cookie, mode).expect("change the mode of a file");
        let epmd = free_address();
        let program = program.args(["-address", "127.0.0.1", "-port"]);
        let epmd_process = folder.spawn(program.arg(epmd.port().to_string()));
        eventually!(START, {
            TcpStream::connect(epmd).await?;
            Ok(())
        });
        let new_node = |_| Node {
            mqtt: free_address(),
            distribution: free_address(),
            process: None,
        };
        let mut cluster = Self {
            nodes: (0..nodes).map(new_node).collect(),
            epmd,
            _epmd_process: epmd_process,
            folder,
        };
        cluster.folder.write("plugins", "[rabbitmq_mqtt].");
        for node in 0..nodes {
            cluster.configure(node, settings);
            cluster.spawn(node);
        }
        for node in 0..nodes {
            cluster.accepts_connections(node).await;
        }
        cluster
    }

    /// Where a node listens for MQTT; the same after [`restart`](Self::restart).
    #[must_use]
    pub fn address(&self, node: usize) -> SocketAddr {
        self.nodes[node].mqtt
    }

    /// A node's address as `mqtt://…`.
    #[must_use]
    pub fn url(&self, node: usize) -> String {
        format!("mqtt://{}", self.address(node))
    }

    /// All nodes' addresses, between commas.
    #[must_use]
    pub fn urls(&self) -> String {
        let urls: Vec<_> = (0..self.nodes.len()).map(|node| self.url(node)).collect();
        urls.join(",")
    }

    /// The process of a node.
    ///
    /// # Panics
    /// When it was killed.
    #[must_use]
    pub fn process(&self, node: usize) -> &Process {
        let process = self.nodes[node].process.as_ref();
        process.expect("a running node")
    }

    /// Kills a node, as a crash would.
    pub async fn kill(&mut self, node: usize) {
        if let Some(mut process) = self.nodes[node].process.take() {
            process.kill().await;
        }
    }

    /// Kills a node if it runs, starts it on the same port, and waits until it
    /// has joined the others and accepts connections.
    ///
    /// # Panics
    /// When it does not.
    pub async fn restart(&mut self, node: usize) {
        self.kill(node).await;
        self.spawn(node);
        self.accepts_connections(node).await;
    }

    /// Stops a node in the middle of what it does, without an end: its sockets
    /// stay open and nothing comes out of them.
    pub fn pause(&self, node: usize) {
        self.process(node).signal(Signal::STOP);
    }

    /// Lets a paused node go on.
    pub fn resume(&self, node: usize) {
        self.process(node).signal(Signal::CONT);
    }

    /// The folder of the cluster's files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A shell script, run with `rabbitmqctl` meaning this cluster's first node.
    ///
    /// # Panics
    /// When it fails.
    pub async fn run_script(&self, script: &Path, environment: &[(&str, &str)]) {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut program = self
            .program(Program::of_system("sh", "dash"))
            .arg("-e")
            .arg(script);
        program = program
            .env("PATH", format!("{SCRIPTS}:{path}"))
            .env("RABBITMQ_NODENAME", name(0));
        for (key, value) in environment {
            program = program.env(key, value);
        }
        let finished = program.in_folder(self.folder.path()).run(START).await;
        assert!(finished.status.success(), "{finished:?}");
    }

    fn configure(&self, node: usize, settings: &str) {
        let mut text = format!(
            "listeners.tcp = none\n\
             mqtt.listeners.tcp.1 = {}\n\
             mqtt.prefetch = 1000\n\
             mqtt.tcp_listen_options.nodelay = true\n\
             log.file = false\n\
             log.console = true\n\
             log.console.level = warning\n\
             cluster_formation.peer_discovery_backend = classic_config\n",
            self.nodes[node].mqtt
        );
        for other in 0..self.nodes.len() {
            let number = other + 1;
            let line = format!("cluster_formation.classic_config.nodes.{number}");
            writeln!(text, "{line} = {}", name(other)).expect("a string grows");
        }
        text += settings;
        self.folder.write(&format!("{node}.conf"), &text);
    }

    fn spawn(&mut self, node: usize) {
        let folder = self.folder.path();
        let distribution = self.nodes[node].distribution.port().to_string();
        let program = self
            .program(Program::of_system(
                &format!("{SCRIPTS}/rabbitmq-server"),
                "rabbitmq-server",
            ))
            .env("RABBITMQ_NODENAME", name(node))
            .env("RABBITMQ_DIST_PORT", distribution)
            .env("RABBITMQ_MNESIA_BASE", folder.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", folder)
            .env("RABBITMQ_CONFIG_FILE", folder.join(format!("{node}.conf")))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("plugins"))
            .env("RABBITMQ_PID_FILE", folder.join(format!("{node}.pid")))
            // The machine's own settings.
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            // Under systemd the script becomes the server, instead of waiting for it.
            .env("NOTIFY_SOCKET", folder.join("nobody"));
        self.nodes[node].process = Some(self.folder.spawn(program));
    }

    async fn accepts_connections(&mut self, node: usize) {
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
            TcpStream::connect(*mqtt).await?;
            Ok(())
        });
    }

    /// With what all of RabbitMQ's programs need to find the cluster.
    fn program(&self, program: Program) -> Program {
        program
            .env("HOME", self.folder.path())
            .env("ERL_EPMD_PORT", self.epmd.port().to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
    }
}

/// Nodes find each other by the port that epmd has for a name, so other clusters
/// with the same names are not in the way.
fn name(node: usize) -> String {
    format!("hark{node}@localhost")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt_publish;

    #[tokio::test]
    async fn one_node_takes_a_message_before_and_after_a_restart() {
        let mut broker = RabbitMqCluster::start(1).await;
        mqtt_publish(broker.address(0), "chat/x", b"hello").await;
        broker.restart(0).await;
        mqtt_publish(broker.address(0), "chat/x", &[b'x'; 70_000]).await;
        let (folder, pid) = (broker.folder().to_owned(), broker.process(0).pid());
        drop(broker);
        eventually!(START, {
            ensure!(!folder.exists(), "{} is still there", folder.display());
            let running = Path::new(&format!("/proc/{pid}")).exists();
            ensure!(!running, "{pid} still runs");
            Ok(())
        });
    }
}
