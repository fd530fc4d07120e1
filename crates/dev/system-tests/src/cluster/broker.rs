use std::net::SocketAddr;

use test_kit::{BrokerCluster, Mosquitto};

/// The broker of a [`Cluster`](crate::Cluster).
pub enum Broker {
    /// One mosquitto.
    Mosquitto(Mosquitto),
    /// Several nodes of RabbitMQ.
    RabbitMq(BrokerCluster),
}

impl Broker {
    pub(super) async fn start(nodes: usize) -> Self {
        match nodes {
            1 => Self::Mosquitto(Mosquitto::start().await),
            _ => Self::RabbitMq(BrokerCluster::rabbitmq(nodes).await),
        }
    }

    /// Where each node listens.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        match self {
            Self::Mosquitto(mosquitto) => vec![mosquitto.address()],
            Self::RabbitMq(cluster) => cluster.addresses(),
        }
    }

    /// The process of each node.
    ///
    /// # Panics
    /// When one was killed.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        match self {
            Self::Mosquitto(mosquitto) => vec![mosquitto.pid()],
            Self::RabbitMq(cluster) => cluster.pids(),
        }
    }

    /// Kills a node, as a crash would.
    pub async fn kill(&mut self, node: usize) {
        match self {
            Self::Mosquitto(mosquitto) => mosquitto.kill().await,
            Self::RabbitMq(cluster) => cluster.kill(node).await,
        }
    }

    /// Starts a node where it was.
    pub async fn restart(&mut self, node: usize) {
        match self {
            Self::Mosquitto(mosquitto) => mosquitto.restart().await,
            Self::RabbitMq(cluster) => cluster.restart(node).await,
        }
    }
}
