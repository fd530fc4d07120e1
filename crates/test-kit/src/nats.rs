use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::Signal;

use crate::free_address::free_address;
use crate::guarded_folder::GuardedFolder;
use crate::{Process, Program, ensure, eventually, mqtt};

/// How long nodes may take to find each other on a busy machine.
const START: Duration = Duration::from_secs(60);

/// A real NATS (Debian package `nats-server`) that speaks MQTT: one node, or a
/// cluster of several, on ports of their own. It ends when it is dropped, and
/// with the test process, so that it may be kept in a static.
pub struct NatsCluster {
    nodes: Vec<Node>,
    folder: GuardedFolder,
}

struct Node {
    mqtt: SocketAddr,
    client: SocketAddr,
    route: SocketAddr,
    process: Option<Process>,
}

impl NatsCluster {
    /// Starts this many nodes, three for a cluster that survives the loss of
    /// one, and waits until they take MQTT sessions.
    ///
    /// # Panics
    /// When NATS is not installed or does not start.
    pub async fn start(nodes: usize) -> Self {
        Self::start_with(nodes, "").await
    }

    /// Starts them with further lines of their configuration.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn start_with(nodes: usize, settings: &str) -> Self {
        let new_node = |_| Node {
            mqtt: free_address(),
            client: free_address(),
            route: free_address(),
            process: None,
        };
        let mut cluster = Self {
            nodes: (0..nodes).map(new_node).collect(),
            folder: GuardedFolder::new("hark-nats-"),
        };
        for node in 0..nodes {
            cluster.configure(node, settings);
            cluster.spawn(node);
        }
        for node in 0..nodes {
            cluster.takes_sessions(node).await;
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
    /// takes MQTT sessions.
    ///
    /// # Panics
    /// When it does not.
    pub async fn restart(&mut self, node: usize) {
        self.kill(node).await;
        self.spawn(node);
        self.takes_sessions(node).await;
    }

    /// Stops a node in the middle of what it does, without an end.
    pub fn pause(&self, node: usize) {
        self.process(node).signal(Signal::STOP);
    }

    /// Lets a paused node go on.
    pub fn resume(&self, node: usize) {
        self.process(node).signal(Signal::CONT);
    }

    fn configure(&self, node: usize, settings: &str) {
        let Node {
            mqtt,
            client,
            route,
            ..
        } = &self.nodes[node];
        let store = self.folder.path().join(format!("store{node}"));
        let routes: Vec<_> = self
            .nodes
            .iter()
            .map(|node| format!("nats-route://{}", node.route))
            .collect();
        // One node alone would wait for others of its cluster for ever.
        let cluster = if self.nodes.len() > 1 {
            let routes = routes.join(", ");
            format!("cluster {{ name: hark, listen: \"{route}\", routes: [{routes}] }}\n")
        } else {
            String::new()
        };
        let text = format!(
            "server_name: hark{node}\nlisten: \"{client}\"\n\
             jetstream {{ store_dir: \"{}\" }}\nmqtt {{ listen: \"{mqtt}\" }}\n{cluster}{settings}",
            store.display()
        );
        self.folder.write(&format!("{node}.conf"), &text);
    }

    fn spawn(&mut self, node: usize) {
        let program = Program::of_system("nats-server", "nats-server").arg("-c");
        let config = self.folder.path().join(format!("{node}.conf"));
        self.nodes[node].process = Some(self.folder.spawn(program.arg(config)));
    }

    /// A node listens long before it takes sessions: those are kept in streams,
    /// for which the cluster needs a leader.
    async fn takes_sessions(&mut self, node: usize) {
        let Node { mqtt, process, .. } = &mut self.nodes[node];
        let process = process.as_mut().expect("a started node");
        eventually!(START, {
            let ended = process.ended();
            ensure!(ended.is_none(), "{ended:?}: {}", process.stderr());
            let (_, (kind, _)) = mqtt::connect(*mqtt).await?;
            ensure!(kind == 0x20, "no CONNACK: {kind:#x}");
            Ok(())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt_publish;

    #[tokio::test]
    async fn three_nodes_take_messages_also_after_one_was_killed() {
        let mut cluster = NatsCluster::start(3).await;
        mqtt_publish(cluster.address(0), "chat/x", b"hello").await;
        cluster.kill(1).await;
        // Another node may have to become the leader of what it led; until then connections end.
        cluster.takes_sessions(2).await;
        eventually!(START, {
            let answer = mqtt::publish(cluster.address(2), "chat/x", &[b'x'; 70_000]).await?;
            ensure!(answer.0 == 0x40, "no PUBACK: {answer:?}");
            Ok(())
        });
        cluster.restart(1).await;
        mqtt_publish(cluster.address(1), "chat/x", b"back").await;
    }
}
