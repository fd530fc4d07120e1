use std::fmt::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;

use tokio::net::TcpStream;

use crate::broker_cluster::{BrokerCluster, Node, START};
use crate::free_address::free_address;
use crate::guarded_folder::GuardedFolder;
use crate::{Program, eventually};

/// Where the scripts are that Debian's wrappers in /usr/sbin start: those change
/// the user and use the folders of the system's service.
const SCRIPTS: &str = "/usr/lib/rabbitmq/bin";

impl BrokerCluster {
    /// Starts this many nodes of RabbitMQ (Debian package `rabbitmq-server`) with
    /// its MQTT plug-in, three for a cluster that survives the loss of one, and
    /// waits until they have joined and take MQTT sessions.
    ///
    /// Users and permissions are RabbitMQ's defaults: whoever comes without a
    /// name is `guest`, who may do everything.
    ///
    /// # Panics
    /// When RabbitMQ is not installed or does not start.
    pub async fn rabbitmq(nodes: usize) -> Self {
        Self::rabbitmq_with(nodes, "").await
    }

    /// Starts them with further lines of `rabbitmq.conf`.
    ///
    /// # Panics
    /// As [`rabbitmq`](Self::rabbitmq).
    pub async fn rabbitmq_with(nodes: usize, settings: &str) -> Self {
        // The registry of names, one for a machine, would stay behind for ever.
        let program = Program::of_system("epmd", "rabbitmq-server");
        let folder = GuardedFolder::new("hark-rabbitmq-");
        let cookie = folder.write(".erlang.cookie", "HARKHARKHARK");
        let mode = std::fs::Permissions::from_mode(0o400);
        std::fs::set_permissions(cookie, mode).expect("change the mode of a file");
        let epmd = free_address();
        let program = program.args(["-address", "127.0.0.1", "-port"]);
        let companion = folder.spawn(program.arg(epmd.port().to_string()));
        eventually!(START, {
            TcpStream::connect(epmd).await?;
            Ok(())
        });
        folder.write("plugins", "[rabbitmq_mqtt].");
        let new_node = |number| {
            let mqtt = free_address();
            folder.write(
                &format!("{number}.conf"),
                &configuration(mqtt, nodes, settings),
            );
            Node::new(mqtt, server(number, &folder, epmd))
        };
        let path = std::env::var("PATH").unwrap_or_default();
        let shell = Program::of_system("sh", "dash").env("PATH", format!("{SCRIPTS}:{path}"));
        let cluster = Self {
            nodes: (0..nodes).map(new_node).collect(),
            _companion: Some(companion),
            shell: of_node(shell, 0, &folder, epmd),
            folder,
        };
        // Of nodes that start at once, one may be left out of the group that keeps the client
        // identifiers: it takes no session, and the loss of another node stops all of them.
        cluster.started_in_turn().await
    }
}

fn configuration(mqtt: SocketAddr, nodes: usize, settings: &str) -> String {
    let mut text = format!(
        "listeners.tcp = none\n\
         mqtt.listeners.tcp.1 = {mqtt}\n\
         mqtt.prefetch = 1000\n\
         mqtt.tcp_listen_options.nodelay = true\n\
         log.file = false\n\
         log.console = true\n\
         log.console.level = warning\n\
         cluster_formation.peer_discovery_backend = classic_config\n"
    );
    for other in 0..nodes {
        let number = other + 1;
        let line = format!("cluster_formation.classic_config.nodes.{number}");
        writeln!(text, "{line} = {}", name(other)).expect("a string grows");
    }
    text + settings
}

fn server(node: usize, folder: &GuardedFolder, epmd: SocketAddr) -> Program {
    let program = Program::of_system(&format!("{SCRIPTS}/rabbitmq-server"), "rabbitmq-server");
    let distribution = free_address().port().to_string();
    let path = folder.path();
    of_node(program, node, folder, epmd)
        .env("RABBITMQ_DIST_PORT", distribution)
        .env("RABBITMQ_MNESIA_BASE", path.join("mnesia"))
        .env("RABBITMQ_LOG_BASE", path)
        .env("RABBITMQ_CONFIG_FILE", path.join(format!("{node}.conf")))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", path.join("plugins"))
        .env("RABBITMQ_PID_FILE", path.join(format!("{node}.pid")))
        // The machine's own settings.
        .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
        // Under systemd the script becomes the server, instead of waiting for it.
        .env("NOTIFY_SOCKET", path.join("nobody"))
}

/// With what all of RabbitMQ's programs need to find a node.
fn of_node(program: Program, node: usize, folder: &GuardedFolder, epmd: SocketAddr) -> Program {
    program
        .env("HOME", folder.path())
        .env("RABBITMQ_NODENAME", name(node))
        .env("ERL_EPMD_PORT", epmd.port().to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
}

/// Nodes find each other by the port that epmd has for a name, so other clusters
/// with the same names are not in the way.
fn name(node: usize) -> String {
    format!("hark{node}@localhost")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{ensure, mqtt_publish};

    #[tokio::test]
    async fn one_node_takes_a_message_before_and_after_a_restart() {
        let mut broker = BrokerCluster::rabbitmq(1).await;
        let node = broker.addresses()[0];
        mqtt_publish(node, "chat/x", b"hello").await;
        broker.restart(0).await;
        mqtt_publish(node, "chat/x", &[b'x'; 70_000]).await;
        let (folder, pid) = (broker.folder.path().to_owned(), broker.pids()[0]);
        drop(broker);
        eventually!(START, {
            ensure!(!folder.exists(), "{} is still there", folder.display());
            let running = Path::new(&format!("/proc/{pid}")).exists();
            ensure!(!running, "{pid} still runs");
            Ok(())
        });
    }
}
