use crate::Program;
use crate::broker_cluster::{BrokerCluster, Node};
use crate::free_address::free_address;
use crate::guarded_folder::GuardedFolder;

impl BrokerCluster {
    /// Starts this many nodes of NATS (Debian package `nats-server`), three for a
    /// cluster that survives the loss of one, and waits until they take MQTT
    /// sessions.
    ///
    /// # Panics
    /// When NATS is not installed or does not start.
    pub async fn nats(nodes: usize) -> Self {
        let folder = GuardedFolder::new("hark-nats-");
        let routes: Vec<_> = (0..nodes).map(|_| free_address()).collect();
        let all_routes: Vec<_> = routes
            .iter()
            .map(|route| format!("nats-route://{route}"))
            .collect();
        let all_routes = all_routes.join(", ");
        let new_node = |(number, route)| {
            let mqtt = free_address();
            // One node alone would wait for others of its cluster for ever.
            let cluster = if nodes > 1 {
                format!("cluster {{ name: hark, listen: \"{route}\", routes: [{all_routes}] }}\n")
            } else {
                String::new()
            };
            let text = format!(
                "server_name: hark{number}\nlisten: \"{client}\"\n\
                 jetstream {{ store_dir: \"{store}\" }}\nmqtt {{ listen: \"{mqtt}\" }}\n{cluster}",
                client = free_address(),
                store = folder.path().join(format!("store{number}")).display(),
            );
            let config = folder.write(&format!("{number}.conf"), &text);
            let program = Program::of_system("nats-server", "nats-server");
            Node::new(mqtt, program.arg("-c").arg(config))
        };
        let cluster = Self {
            nodes: routes.iter().enumerate().map(new_node).collect(),
            _companion: None,
            shell: Program::of_system("sh", "dash"),
            folder,
        };
        cluster.started().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker_cluster::START;
    use crate::{ensure, eventually, mqtt, mqtt_publish};

    #[tokio::test]
    async fn three_nodes_take_messages_also_after_one_was_killed() {
        let mut cluster = BrokerCluster::nats(3).await;
        let nodes = cluster.addresses();
        mqtt_publish(nodes[0], "chat/x", b"hello").await;
        cluster.kill(1).await;
        // Another node may have to become the leader of what it led; until then connections end.
        cluster.takes_sessions(2).await;
        eventually!(START, {
            let answer = mqtt::publish(nodes[2], "chat/x", &[b'x'; 70_000]).await?;
            ensure!(answer.0 == 0x40, "no PUBACK: {answer:?}");
            Ok(())
        });
        cluster.restart(1).await;
        mqtt_publish(nodes[1], "chat/x", b"back").await;
    }
}
